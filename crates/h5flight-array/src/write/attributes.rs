//! The attributes of a dataset that is written: a JSON object of texts, numbers, booleans, and lists of one kind.

use serde_json::{Map, Value};

use crate::error::{Error, Reason, Result};

/// Attributes at most.
const ATTRIBUTES_MAX: usize = 1_000;
/// Bytes of one name at most.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of the values of one attribute at most: what an object header takes, less its own. A text counts with the 16
/// bytes of its place in the heap.
const VALUE_BYTES_MAX: usize = 60_000;
/// Bytes of all texts of one attribute at most.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// An attribute that can be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// One value or several, each of 64 bits.
    Integers(Vec<i64>),
    /// Some do not fit 63 bits.
    Unsigned(Vec<u64>),
    /// Numbers, one of which is no integer.
    Floats(Vec<f64>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts without NUL.
    Texts(Vec<String>),
}

impl Attribute {
    /// What a value of JSON is; the flag says whether it is a list.
    ///
    /// # Errors
    /// `bad_request` naming the attribute.
    pub fn of(name: &str, value: &Value) -> Result<(Self, bool)> {
        let refuse = |why: &str| Error::new(Reason::BadRequest, format!("attribute {name:?} {why}"));
        let (values, is_list) = match value {
            Value::Array(values) => (values.as_slice(), true),
            one => (std::slice::from_ref(one), false),
        };
        let all = |is: fn(&Value) -> bool| values.iter().all(is);
        let attribute = if values.is_empty() {
            Self::Floats(Vec::new())
        } else if all(Value::is_i64) {
            Self::Integers(values.iter().filter_map(Value::as_i64).collect())
        } else if all(Value::is_u64) {
            Self::Unsigned(values.iter().filter_map(Value::as_u64).collect())
        } else if all(Value::is_number) {
            Self::Floats(values.iter().filter_map(Value::as_f64).collect())
        } else if all(Value::is_boolean) {
            Self::Bools(values.iter().filter_map(Value::as_bool).collect())
        } else if all(Value::is_string) {
            Self::Texts(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        } else {
            return Err(refuse("is neither text, number nor truth value, nor a list of one kind of these"));
        };
        let text_bytes = match &attribute {
            Self::Texts(texts) if texts.iter().any(|text| text.contains('\0')) => return Err(refuse("contains a NUL")),
            Self::Texts(texts) => texts.iter().map(String::len).sum(),
            _ => 0,
        };
        if values.len() * 16 > VALUE_BYTES_MAX || text_bytes > TEXT_BYTES_MAX {
            let (count, most) = (values.len(), VALUE_BYTES_MAX / 16);
            return Err(refuse(&format!(
                "has {count} values with {text_bytes} bytes of text, the most are {most} and {TEXT_BYTES_MAX}"
            )));
        }
        Ok((attribute, is_list))
    }
}

/// The attributes in this text; none where it is empty.
///
/// # Errors
/// `bad_request` naming the attribute that cannot be written.
pub fn parse(text: &str) -> Result<Map<String, Value>> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    let refuse = |why: String| Error::new(Reason::BadRequest, why);
    let attributes: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| refuse(format!("the attributes are no JSON object: {error}")))?;
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(refuse(format!("{} attributes, the most is {ATTRIBUTES_MAX}", attributes.len())));
    }
    for (name, value) in &attributes {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(refuse(format!(
                "an attribute's name has 1 to {NAME_BYTES_MAX} bytes and no NUL, not {name:?}"
            )));
        }
        Attribute::of(name, value)?;
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_of_one_kind_each() {
        for good in
            [r#"{"a": 1, "b": [1.5, 2], "c": "x", "d": ["x", "y"], "e": true, "f": [], "g": 18446744073709551615}"#, ""]
        {
            parse(good).unwrap();
        }
        for bad in [
            "[]",
            r#"{"a": null}"#,
            r#"{"a": {"b": 1}}"#,
            r#"{"a": [1, "x"]}"#,
            r#"{"a": [[1]]}"#,
            r#"{"": 1}"#,
            r#"{"a": "x\u0000y"}"#,
        ] {
            assert_eq!(parse(bad).unwrap_err().reason, Reason::BadRequest, "{bad}");
        }
        let kind = |text: &str| Attribute::of("a", &serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(kind("[1, 2.5]"), (Attribute::Floats(vec![1.0, 2.5]), true));
        assert_eq!(kind("[1, 18446744073709551615]"), (Attribute::Unsigned(vec![1, u64::MAX]), true));
        assert_eq!(kind("-3"), (Attribute::Integers(vec![-3]), false));
        assert_eq!(kind("[false]"), (Attribute::Bools(vec![false]), true));
    }
}
