//! Attributes, and small values in general, as JSON. The forms are those of [`h5flight_array::inspect::Object`].

use std::ffi::{CStr, CString, c_char, c_void};

use h5flight_array::batch::numpy_type;
use h5flight_array::inspect::InspectLimits;
use h5flight_array::meta::{ByteOrder, ElementType, Space};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::{H5_INDEX_NAME, H5_ITER_INC, herr_t};
use hdf5_sys::h5a::{H5A_info_t, H5Aget_space, H5Aget_type, H5Aiterate2, H5Aopen, H5Aread};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use serde_json::{Map, Number, Value, json};

use crate::element::{self, Translated};
use crate::handle::{Handle, checked};
use crate::layout;
use crate::names;
use crate::packed::{Form, Layout, sequence, string};
use crate::read::Memory;
use crate::reference::References;

/// JSON bytes of one object's attributes, names and types included: a description of it must fit the 4 MiB that gRPC
/// clients take unless told otherwise.
const ATTRIBUTES_JSON_BYTES_MAX: usize = 3 << 20;
/// JSON bytes of what is told of one attribute's type: an enum may have 65,536 names.
const TYPE_JSON_BYTES_MAX: usize = 64 << 10;
/// Levels of lists and objects in one value: the reader of a message gives up at 128.
const DEPTH_MAX: usize = 100;

/// All attributes of an object: both as in [`h5flight_array::inspect::Object`].
#[derive(Default)]
pub(crate) struct Attributes {
    /// Values by name.
    pub(crate) values: Map<String, Value>,
    /// Types by name.
    pub(crate) types: Map<String, Value>,
}

/// One attribute.
pub(crate) struct Attribute {
    /// Its value, or why there is none.
    pub(crate) value: Value,
    /// What JSON does not tell of its type and shape.
    pub(crate) note: Option<Value>,
}

/// All attributes of an object, by name. One that cannot be read is listed with its error; attributes that cannot even
/// be listed are an error under the empty name, which no attribute has.
///
/// # Errors
/// `file_too_complex` with more than the limit.
pub(crate) fn all(object: &Handle, limits: &InspectLimits, references: &References) -> Result<Attributes> {
    let mut listing = Listing { names: Vec::new(), names_max: limits.attributes_max as usize, exceeded: false };
    let mut at = 0;
    // SAFETY: the callback only runs during this call, and the pointer it gets is the listing above.
    let status = unsafe {
        H5Aiterate2(
            object.id(),
            H5_INDEX_NAME,
            H5_ITER_INC,
            &raw mut at,
            Some(keep_name),
            (&raw mut listing).cast::<c_void>(),
        )
    };
    let status = checked(status, "attributes cannot be listed");
    if listing.exceeded {
        let message = format!("an object has more than {} attributes (inspect_attributes_max)", limits.attributes_max);
        return Err(Error::new(Reason::FileTooComplex, message));
    }
    let mut attributes = Attributes::default();
    if let Err(error) = status {
        attributes.values.insert(String::new(), failed(&error));
    }
    let mut bytes_left = ATTRIBUTES_JSON_BYTES_MAX;
    let mut left_out = 0u64;
    for name in listing.names {
        let shown = attributes.free_name(name.to_bytes());
        let found = one(object, &name, limits, references);
        if !attributes.add(shown, found, &mut bytes_left) {
            left_out += 1;
        }
    }
    if left_out > 0 {
        let message =
            format!("{left_out} more attributes: an object's take {ATTRIBUTES_JSON_BYTES_MAX} bytes of JSON at most");
        attributes.values.insert(String::new(), json!({ "error": message }));
    }
    Ok(attributes)
}

impl Attributes {
    /// The name as it is shown. Bytes that are not UTF-8 may look as another name does: a NUL, which no name has, tells
    /// them apart.
    fn free_name(&self, name: &[u8]) -> String {
        let mut shown = names::shown(name);
        while self.values.contains_key(&shown) {
            shown.push_str("%00");
        }
        shown
    }

    /// Adds an attribute as far as there is room: whole, else without its value, else not at all, which is false.
    fn add(&mut self, name: String, found: Attribute, bytes_left: &mut usize) -> bool {
        let Attribute { mut value, note } = found;
        let note = note.filter(|note| json_bytes(note) <= TYPE_JSON_BYTES_MAX);
        let mut bytes = json_bytes(&value) + 2 * name.len() + note.as_ref().map_or(0, json_bytes);
        if bytes > *bytes_left {
            value = omitted(json_bytes(&value) as u64);
            bytes = json_bytes(&value) + 2 * name.len() + note.as_ref().map_or(0, json_bytes);
        }
        if bytes > *bytes_left {
            return false;
        }
        *bytes_left -= bytes;
        if let Some(note) = note {
            self.types.insert(name.clone(), note);
        }
        self.values.insert(name, value);
        true
    }
}

fn json_bytes(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

struct Listing {
    names: Vec<CString>,
    names_max: usize,
    exceeded: bool,
}

unsafe extern "C" fn keep_name(_: hid_t, name: *const c_char, _: *const H5A_info_t, listing: *mut c_void) -> herr_t {
    // SAFETY: `all` passes its listing, and nothing else refers to it while libhdf5 iterates.
    let listing = unsafe { &mut *listing.cast::<Listing>() };
    if listing.names.len() >= listing.names_max {
        listing.exceeded = true;
        return -1;
    }
    // SAFETY: libhdf5 passes a NUL-terminated name, valid for the time of the call.
    listing.names.push(unsafe { CStr::from_ptr(name) }.to_owned());
    0
}

/// One attribute. What cannot be read has its error as its value.
pub(crate) fn one(object: &Handle, name: &CStr, limits: &InspectLimits, references: &References) -> Attribute {
    let mut note = None;
    let mut value = read(object, name, limits, (references, &mut note)).unwrap_or_else(|error| failed(&error));
    if depth(&value) > DEPTH_MAX {
        value = json!({ "error": format!("the value nests deeper than {DEPTH_MAX} levels") });
    }
    Attribute { value, note }
}

/// The value; `note` is set as soon as the type is known.
fn read(
    object: &Handle,
    name: &CStr,
    limits: &InspectLimits,
    (references, note): (&References, &mut Option<Value>),
) -> Result<Value> {
    // SAFETY: the object is alive and the name NUL-terminated.
    let attribute = Handle::new(unsafe { H5Aopen(object.id(), name.as_ptr(), H5P_DEFAULT) }, "attribute")?;
    // SAFETY: the attribute is alive.
    let file_type = Handle::new(unsafe { H5Aget_type(attribute.id()) }, "attribute type")?;
    // SAFETY: as above.
    let space = Handle::new(unsafe { H5Aget_space(attribute.id()) }, "attribute space")?;
    let (space, _) = layout::space_of(&space)?;
    let translated = element::translate(&file_type)?;
    if let Some(why) = translated.element.unsupported() {
        return Err(Error::new(Reason::UnsupportedType, why));
    }
    *note = type_note(&translated, &space);
    let Space::Simple { shape } = space else { return Ok(Value::Null) };
    let layout = Layout::of(&translated.memory)?;
    let elements = h5flight_array::meta::product(&shape).unwrap_or(u64::MAX);
    let bytes = elements.saturating_mul(layout.size as u64);
    if bytes > limits.attribute_bytes_max {
        return Ok(omitted(bytes));
    }
    let mut memory = Memory::zeroed(&translated.memory, &layout, &shape)?;
    if elements > 0 {
        memory.fill_with(|target, memory_type| {
            // SAFETY: the target has room for all elements of the attribute in this type.
            checked(unsafe { H5Aread(attribute.id(), memory_type, target) }, "the value cannot be read")
        })?;
    }
    let all_bytes = bytes.saturating_add(layout.bytes_behind(memory.bytes())?);
    if all_bytes > limits.attribute_bytes_max {
        return Ok(omitted(all_bytes));
    }
    array(&translated.element, &layout, memory.bytes(), &shape, references)
}

/// What JSON does not tell of a type and a shape, in the form of [`h5flight_array::inspect::Object::attribute_types`].
fn type_note(translated: &Translated, space: &Space) -> Option<Value> {
    let element = &translated.element;
    let of = match element {
        ElementType::VarString { .. } => "str".into(),
        ElementType::Integer { .. }
        | ElementType::Float { .. }
        | ElementType::Bool
        | ElementType::FixedString { .. }
        | ElementType::Complex { .. } => numpy_type(element).into(),
        ElementType::Opaque { tag, .. } if tag.is_empty() => numpy_type(element).into(),
        ElementType::Bitfield { bytes: 1 | 2 | 4 | 8, .. } => numpy_type(element).into(),
        _ => serde_json::to_value(element).ok()?,
    };
    match space {
        Space::Simple { shape } if shape.is_empty() && translated.note.is_empty() => {
            (!matches!(element, ElementType::VarString { .. })).then_some(of)
        }
        Space::Simple { shape } if translated.note.is_empty() => Some(json!([of, shape])),
        Space::Null if translated.note.is_empty() => Some(json!([of, null])),
        Space::Simple { shape } => Some(json!([of, shape, translated.note])),
        Space::Null => Some(json!([of, null, translated.note])),
    }
}

/// Elements on a grid as nested lists; the empty shape is the element itself.
pub(crate) fn array(
    element: &ElementType,
    layout: &Layout,
    memory: &[u8],
    shape: &[u64],
    references: &References,
) -> Result<Value> {
    let Some((rows, rest)) = shape.split_first() else { return value(element, layout, memory, references) };
    let rows = *rows as usize;
    if rows == 0 || memory.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    let row_bytes = memory.len() / rows;
    memory.chunks_exact(row_bytes).map(|row| array(element, layout, row, rest, references)).collect()
}

fn value(element: &ElementType, layout: &Layout, memory: &[u8], references: &References) -> Result<Value> {
    Ok(match (element, &layout.form) {
        (ElementType::VarString { .. }, Form::VarString) => text_value(string(memory)),
        (ElementType::VarLen { item }, Form::VarLen(item_layout)) => {
            let items = sequence(memory, item_layout.size)?;
            list(item, item_layout, items, references)?
        }
        (ElementType::Array { dims, item }, Form::Items(_, item_layout)) => {
            let shape: Vec<u64> = dims.iter().map(|size| u64::from(*size)).collect();
            array(item, item_layout, memory, &shape, references)?
        }
        (ElementType::Compound { members, .. }, Form::Members(layouts)) => {
            let mut object = Map::new();
            for (member, (offset, member_layout)) in members.iter().zip(layouts) {
                let field = &memory[*offset..*offset + member_layout.size];
                object.insert(member.name.clone(), value(&member.element, member_layout, field, references)?);
            }
            Value::Object(object)
        }
        (ElementType::Reference { .. }, Form::Reference(form)) => json!({ "ref": references.path(*form, memory) }),
        _ => leaf(element, memory),
    })
}

fn list(element: &ElementType, layout: &Layout, memory: &[u8], references: &References) -> Result<Value> {
    memory.chunks_exact(layout.size).map(|item| value(element, layout, item, references)).collect()
}

fn leaf(element: &ElementType, bytes: &[u8]) -> Value {
    match element {
        ElementType::Integer { signed, order, .. } => integer(bytes, *signed, *order),
        ElementType::Float { order, .. } => float(bytes, *order),
        ElementType::Bool => Value::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
        ElementType::Enum { base, .. } => leaf(base, bytes),
        ElementType::FixedString { padding, .. } => text_value(padding.cut(bytes)),
        ElementType::Complex { part } => {
            let (real, imaginary) = bytes.split_at(bytes.len() / 2);
            json!({ "r": leaf(part, real), "i": leaf(part, imaginary) })
        }
        ElementType::Opaque { .. } | ElementType::Bitfield { .. } => base64_value(bytes),
        ElementType::VarString { .. }
        | ElementType::VarLen { .. }
        | ElementType::Compound { .. }
        | ElementType::Array { .. }
        | ElementType::Reference { .. }
        | ElementType::Unsupported { .. } => json!({ "error": "the value does not fit its type" }),
    }
}

/// The bytes of a number, most significant last, filled up with zeros.
fn little(bytes: &[u8], order: ByteOrder) -> [u8; 8] {
    let mut value = [0; 8];
    for (at, byte) in bytes.iter().take(8).enumerate() {
        value[match order {
            ByteOrder::Little => at,
            ByteOrder::Big => bytes.len().min(8) - 1 - at,
        }] = *byte;
    }
    value
}

fn integer(bytes: &[u8], signed: bool, order: ByteOrder) -> Value {
    let value = u64::from_le_bytes(little(bytes, order));
    if !signed {
        return value.into();
    }
    let unused_bits = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    ((value << unused_bits) as i64 >> unused_bits).into()
}

fn float(bytes: &[u8], order: ByteOrder) -> Value {
    let [a, b, c, d, ..] = little(bytes, order);
    let value = match bytes.len() {
        2 => half(u16::from_le_bytes([a, b])),
        4 => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => f64::from_le_bytes(little(bytes, order)),
    };
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// IEEE binary16.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn text_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => base64_value(bytes),
    }
}

fn base64_value(bytes: &[u8]) -> Value {
    json!({ "b64": base64(bytes) })
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = std::array::from_fn(|at| u32::from(group.get(at).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn omitted(bytes: u64) -> Value {
    json!({ "omitted": bytes })
}

fn failed(error: &Error) -> Value {
    json!({ "error": error.message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_and_order_become_json() {
        use ByteOrder::{Big, Little};
        assert_eq!(integer(&[0xfe, 0xff], true, Little), json!(-2));
        assert_eq!(integer(&[0xff, 0xfe], true, Big), json!(-2));
        assert_eq!(integer(&[0xff; 8], false, Big), json!(u64::MAX));
        assert_eq!(integer(&[0x80], true, Little), json!(-128));
        assert_eq!(float(&1.5f32.to_be_bytes(), Big), json!(1.5));
        assert_eq!(float(&f64::NAN.to_le_bytes(), Little), json!("NaN"));
        assert_eq!(float(&f64::NEG_INFINITY.to_le_bytes(), Little), json!("-Infinity"));
        let halves = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0), (0x0000, 0.0)];
        for (bits, value) in halves {
            assert_eq!(half(bits), value, "{bits:#x}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
