//! What an expression says of rows: columns in Arrow's form go in, one answer a row comes out.

use std::borrow::Cow;
use std::cmp::Ordering;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float16Array, Float32Array, Float64Array, downcast_dictionary_array,
};
use arrow::compute;
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::{Expression, Literal, Pattern, Test};
use crate::error::{Error, Reason, Result};

impl Expression {
    /// Evaluates this over columns of equal lengths: true, false, or null where it is not known.
    ///
    /// # Errors
    /// `bad_expression` for a value that the column's type cannot be compared with, and for what `column` says.
    pub fn evaluate(&self, column: &dyn Fn(&str) -> Result<ArrayRef>) -> Result<BooleanArray> {
        match self {
            Self::All(members) => fold(members, column, compute::and_kleene),
            Self::Any(members) => fold(members, column, compute::or_kleene),
            Self::Not(inner) => compute::not(&inner.evaluate(column)?).map_err(internal),
            Self::Condition { name, test } => tested(&column(name)?, name, test),
            Self::Word(word) => Err(refuse(format!("{word:?} is a word: a filter has conditions only"))),
        }
    }
}

type Join = fn(&BooleanArray, &BooleanArray) -> std::result::Result<BooleanArray, arrow::error::ArrowError>;

fn fold(members: &[Expression], column: &dyn Fn(&str) -> Result<ArrayRef>, join: Join) -> Result<BooleanArray> {
    let mut members = members.iter();
    let first = members.next().ok_or_else(|| refuse("nothing is joined".to_owned()))?.evaluate(column)?;
    members.try_fold(first, |before, member| join(&before, &member.evaluate(column)?).map_err(internal))
}

fn refuse(message: String) -> Error {
    Error::new(Reason::BadExpression, message)
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::new(Reason::Internal, "an expression cannot be evaluated").with_source(error)
}

/// What kind of values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Bool,
}

impl Kind {
    fn is_of(self, literal: &Literal) -> bool {
        match literal {
            Literal::Integer(_) | Literal::Float(_) => self == Self::Number,
            Literal::Text(_) => self == Self::Text,
            Literal::Bool(_) => self == Self::Bool,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Text => "texts",
            Self::Bool => "true and false",
        }
    }
}

fn tested(array: &ArrayRef, name: &str, test: &Test) -> Result<BooleanArray> {
    let array = array.as_ref();
    downcast_dictionary_array! {
        array => {
            // Of each value once, whatever the number of rows.
            let of_values = tested(array.values(), name, test)?;
            let of_rows = compute::take(&of_values, array.keys(), None).map_err(internal)?;
            return Ok(of_rows.as_boolean().clone());
        },
        _ => {}
    }
    if *test == Test::IsNull {
        return Ok((0..array.len()).map(|row| Some(is_missing(array, row))).collect());
    }
    macro_rules! integers {
        ($type:ty) => {{
            let values = array.as_primitive::<$type>();
            let get = |row: usize| i128::from(values.value(row));
            rows(array, (name, Kind::Number), test, get, |value, literal| literal.compare_integer(*value))
        }};
    }
    let number = (name, Kind::Number);
    match array.data_type() {
        DataType::Int8 => integers!(Int8Type),
        DataType::Int16 => integers!(Int16Type),
        DataType::Int32 => integers!(Int32Type),
        DataType::Int64 => integers!(Int64Type),
        DataType::UInt8 => integers!(UInt8Type),
        DataType::UInt16 => integers!(UInt16Type),
        DataType::UInt32 => integers!(UInt32Type),
        DataType::UInt64 => integers!(UInt64Type),
        DataType::Float64 => {
            let values: &Float64Array = array.as_primitive();
            rows(array, number, test, |row| values.value(row), |value, literal| literal.compare_float(*value))
        }
        DataType::Float32 => {
            let (values, test): (&Float32Array, _) =
                (array.as_primitive(), narrowed(test, |value| f64::from(value as f32)));
            rows(
                array,
                number,
                &test,
                |row| f64::from(values.value(row)),
                |value, literal| literal.compare_float(*value),
            )
        }
        DataType::Float16 => {
            let values: &Float16Array = array.as_primitive();
            let round = |value| half(value, values);
            let test = narrowed(test, round);
            rows(array, number, &test, |row| values.value(row).to_f64(), |value, literal| literal.compare_float(*value))
        }
        DataType::Boolean => {
            let values = array.as_boolean();
            rows(
                array,
                (name, Kind::Bool),
                test,
                |row| values.value(row),
                |value, literal| match literal {
                    Literal::Bool(truth) => Some(value.cmp(truth)),
                    Literal::Integer(_) | Literal::Float(_) | Literal::Text(_) => None,
                },
            )
        }
        DataType::Utf8 => texts(array, name, test, |row| array.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => texts(array, name, test, |row| array.as_string::<i64>().value(row).into()),
        DataType::Binary => {
            texts(array, name, test, |row| String::from_utf8_lossy(array.as_binary::<i32>().value(row)))
        }
        other => Err(refuse(format!("{name:?} has no single value a row that a filter compares: it is {other}"))),
    }
}

/// The nearest value that the column could hold, so that `x = 0.1` finds what was written as 0.1 in fewer bytes.
fn narrowed(test: &Test, round: impl Fn(f64) -> f64) -> Test {
    let narrow = |literal: &Literal| match literal {
        Literal::Float(value) if round(*value).is_finite() => Literal::Float(round(*value)),
        other => other.clone(),
    };
    match test {
        Test::Compare(comparison, literal) => Test::Compare(*comparison, narrow(literal)),
        Test::In(literals) => Test::In(literals.iter().map(narrow).collect()),
        Test::Between(low, high) => Test::Between(narrow(low), narrow(high)),
        Test::Like(_) | Test::Contains(_) | Test::IsNull => test.clone(),
    }
}

/// Rounded to the floats of `like`.
fn half(value: f64, like: &Float16Array) -> f64 {
    let cast = compute::cast(&Float64Array::from(vec![value]), like.data_type());
    cast.map_or(f64::NAN, |cast| cast.as_primitive::<arrow::datatypes::Float16Type>().value(0).to_f64())
}

fn is_missing(array: &dyn Array, row: usize) -> bool {
    array.is_null(row)
        || match array.data_type() {
            DataType::Float64 => array.as_primitive::<arrow::datatypes::Float64Type>().value(row).is_nan(),
            DataType::Float32 => array.as_primitive::<arrow::datatypes::Float32Type>().value(row).is_nan(),
            DataType::Float16 => array.as_primitive::<arrow::datatypes::Float16Type>().value(row).is_nan(),
            _ => false,
        }
}

fn texts<'a>(
    array: &'a dyn Array,
    name: &str,
    test: &Test,
    get: impl Fn(usize) -> Cow<'a, str>,
) -> Result<BooleanArray> {
    let pattern = match test {
        Test::Like(pattern) => Pattern::like(pattern),
        Test::Contains(text) => Pattern::contains(text),
        Test::Compare(..) | Test::In(_) | Test::Between(..) | Test::IsNull => {
            let compare = |value: &Cow<'_, str>, literal: &Literal| match literal {
                Literal::Text(text) => Some(value.as_bytes().cmp(text.as_bytes())),
                Literal::Integer(_) | Literal::Float(_) | Literal::Bool(_) => None,
            };
            return rows(array, (name, Kind::Text), test, get, compare);
        }
    };
    Ok((0..array.len()).map(|row| array.is_valid(row).then(|| pattern.matches(&get(row)))).collect())
}

fn rows<T>(
    array: &dyn Array,
    (name, kind): (&str, Kind),
    test: &Test,
    get: impl Fn(usize) -> T,
    compare: impl Fn(&T, &Literal) -> Option<Ordering>,
) -> Result<BooleanArray> {
    let literals: Vec<&Literal> = match test {
        Test::Compare(_, literal) => vec![literal],
        Test::In(literals) => literals.iter().collect(),
        Test::Between(low, high) => vec![low, high],
        Test::Like(_) | Test::Contains(_) => {
            return Err(refuse(format!("{name:?} has {}: LIKE and CONTAINS are for texts", kind.as_str())));
        }
        Test::IsNull => Vec::new(),
    };
    if let Some(other) = literals.iter().find(|literal| !kind.is_of(literal)) {
        return Err(refuse(format!("{name:?} has {}, it cannot be compared with {}", kind.as_str(), other.kind())));
    }
    let holds = |value: &T| match test {
        Test::Compare(comparison, literal) => compare(value, literal).map(|order| comparison.holds(order)),
        Test::In(literals) => literals
            .iter()
            .try_fold(false, |found, literal| compare(value, literal).map(|order| found || order.is_eq())),
        Test::Between(low, high) => Some(compare(value, low)?.is_ge() && compare(value, high)?.is_le()),
        Test::Like(_) | Test::Contains(_) | Test::IsNull => None,
    };
    Ok((0..array.len()).map(|row| array.is_valid(row).then(|| get(row)).and_then(|value| holds(&value))).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Float32Array, Int64Array, StringArray, UInt64Array};

    use super::*;

    /// Rows that are true, false (0) and unknown (None).
    fn answers(text: &str) -> Result<Vec<Option<bool>>> {
        let names: DictionaryArray<Int32Type> = vec!["left", "right", "left"].into_iter().collect();
        let column = |name: &str| -> Result<ArrayRef> {
            Ok(match name {
                "i" => Arc::new(Int64Array::from(vec![-1, 2, 3])),
                "u" => Arc::new(UInt64Array::from(vec![0, u64::MAX, (1 << 53) + 1])),
                "f" => Arc::new(Float64Array::from(vec![0.5, f64::NAN, 9_007_199_254_740_992.0])),
                "f4" => Arc::new(Float32Array::from(vec![0.1, 0.2, f32::NAN])),
                "s" => Arc::new(StringArray::from(vec!["go", "NoGo", "größe"])),
                "b" => Arc::new(BooleanArray::from(vec![true, false, true])),
                "d" => Arc::new(names.clone()),
                other => return Err(refuse(format!("no {other}"))),
            })
        };
        Ok(Expression::filter(text)?.evaluate(&column)?.iter().collect())
    }

    #[test]
    fn conditions_mean_what_sql_means() {
        const T: Option<bool> = Some(true);
        const F: Option<bool> = Some(false);
        let cases = [
            ("i > 1.5", [F, T, T]),
            ("i in (2, 3.0, 99)", [F, T, T]),
            ("u = 18446744073709551615", [F, T, F]),
            ("u = 9007199254740993", [F, F, T]),
            ("u = 9007199254740992.0", [F, F, F]),
            ("u >= -5", [T, T, T]),
            ("f = 9007199254740993", [F, None, F]),
            ("f != 0.5", [F, None, T]),
            ("not f = 0.5", [F, None, T]),
            ("f is null", [F, T, F]),
            ("f is null or f > 0", [T, T, T]),
            ("f > 0 and i = 99", [F, F, F]),
            ("f4 = 0.1", [T, F, None]),
            ("f4 between 0.1 and 0.2", [T, T, None]),
            ("s = 'go'", [T, F, F]),
            ("s contains 'GO'", [T, T, F]),
            ("s like '____e'", [F, F, T]),
            ("s > 'go'", [F, F, T]),
            ("b = true", [T, F, T]),
            ("b != true", [F, T, F]),
            ("d = 'left'", [T, F, T]),
            ("d in ('right') or i = 3", [F, T, T]),
        ];
        for (text, expected) in cases {
            assert_eq!(answers(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        for (text, told) in [
            ("i = 'x'", "\"i\" has numbers, it cannot be compared with a text"),
            ("s = 5", "\"s\" has texts, it cannot be compared with a number"),
            ("b = 1", "\"b\" has true and false, it cannot be compared with a number"),
            ("f like 'x'", "\"f\" has numbers: LIKE and CONTAINS are for texts"),
            ("d = 1", "\"d\" has texts"),
            ("zzz = 1", "no zzz"),
        ] {
            let error = answers(text).expect_err(text);
            assert_eq!(error.reason, Reason::BadExpression);
            assert!(error.message.contains(told), "{text}: {error}");
        }
    }
}
