//! Whether the strings of an array are UTF-8: the file's own claim is not reliable, so the values are looked at.

use h5flight_array::Result;
use h5flight_array::meta::{ElementType, Text};

use crate::packed::{Form, Layout, sequence, string};

/// Marks every string of the type of which some value in `memory` is not UTF-8.
///
/// `memory` must have been filled by libhdf5 with elements of the type that both `element` and `layout` are of.
pub(crate) fn mark(element: &mut ElementType, layout: &Layout, memory: &[u8]) -> Result<()> {
    match (element, &layout.form) {
        (ElementType::FixedString { padding, text, .. }, Form::Bytes) => {
            let fields = memory.chunks_exact(layout.size);
            note(text, fields.map(|field| padding.cut(field)));
        }
        (ElementType::VarString { text }, Form::VarString) => {
            note(text, memory.chunks_exact(layout.size).map(string));
        }
        (ElementType::VarLen { item }, Form::VarLen(item_layout)) if has_strings(item) => {
            for element in memory.chunks_exact(layout.size) {
                mark(item, item_layout, sequence(element, item_layout.size)?)?;
            }
        }
        (ElementType::Array { item, .. }, Form::Items(_, item_layout)) if has_strings(item) => {
            mark(item, item_layout, memory)?;
        }
        (ElementType::Compound { members, .. }, Form::Members(layouts)) => {
            for (member, (offset, member_layout)) in members.iter_mut().zip(layouts) {
                if has_strings(&member.element) {
                    for element in memory.chunks_exact(layout.size) {
                        let field = &element[*offset..*offset + member_layout.size];
                        mark(&mut member.element, member_layout, field)?;
                    }
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether there is anything to mark.
pub(crate) fn has_strings(element: &ElementType) -> bool {
    match element {
        ElementType::FixedString { .. } | ElementType::VarString { .. } => true,
        ElementType::VarLen { item } | ElementType::Array { item, .. } => has_strings(item),
        ElementType::Compound { members, .. } => members.iter().any(|member| has_strings(&member.element)),
        ElementType::Integer { .. }
        | ElementType::Float { .. }
        | ElementType::Bool
        | ElementType::Enum { .. }
        | ElementType::Complex { .. }
        | ElementType::Opaque { .. }
        | ElementType::Bitfield { .. }
        | ElementType::Reference { .. }
        | ElementType::Unsupported { .. } => false,
    }
}

/// Sets the mark of every string of the type.
pub(crate) fn reset(element: &mut ElementType, to: Text) {
    match element {
        ElementType::FixedString { text, .. } | ElementType::VarString { text } => *text = to,
        ElementType::VarLen { item } | ElementType::Array { item, .. } => reset(item, to),
        ElementType::Compound { members, .. } => {
            members.iter_mut().for_each(|member| reset(&mut member.element, to));
        }
        ElementType::Integer { .. }
        | ElementType::Float { .. }
        | ElementType::Bool
        | ElementType::Enum { .. }
        | ElementType::Complex { .. }
        | ElementType::Opaque { .. }
        | ElementType::Bitfield { .. }
        | ElementType::Reference { .. }
        | ElementType::Unsupported { .. } => {}
    }
}

/// Looks at values until one is not UTF-8.
fn note<'a>(text: &mut Text, mut values: impl Iterator<Item = &'a [u8]>) {
    if *text == Text::Utf8 && values.any(|value| std::str::from_utf8(value).is_err()) {
        *text = Text::Binary;
    }
}

#[cfg(test)]
mod tests {
    use h5flight_array::meta::StringPadding;

    #[test]
    fn a_field_is_cut_by_its_padding() {
        use StringPadding::{NullPadded, NullTerminated, SpacePadded};
        let cases: [(&[u8], StringPadding, &[u8]); 10] = [
            (b"ab\0cd\0", NullTerminated, b"ab"),
            (b"abcd", NullTerminated, b"abcd"),
            (b"ab\0cd\0\0", NullPadded, b"ab\0cd"),
            (b"\0\0", NullPadded, b""),
            (b"ab  ", SpacePadded, b"ab"),
            (b" a\0 ", SpacePadded, b" a"),
            (b"a \0 \0   ", SpacePadded, b"a \0 "),
            (b"a \0\0", SpacePadded, b"a "),
            (b"\0\0\0", SpacePadded, b""),
            (b"    ", SpacePadded, b""),
        ];
        for (field, padding, value) in cases {
            assert_eq!(padding.cut(field), value, "{field:?} {padding:?}");
        }
    }
}
