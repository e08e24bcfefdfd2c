//! The text of an expression.

use h5flight_array::expression::{CONDITIONS_MAX, Expression, Pattern, TEXT_BYTES_MAX};

/// Text in, expression out: the canonical text is the same expression, in both grammars.
pub fn expression_text(data: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    if let Ok(filter) = Expression::filter(text) {
        assert!(filter.names().len() <= CONDITIONS_MAX);
        let canonical = filter.to_string();
        // Quotes and parentheses may make it longer than what is read.
        if canonical.len() <= TEXT_BYTES_MAX {
            assert_eq!(Expression::filter(&canonical).unwrap(), filter, "{canonical:?} is another filter");
        }
    }
    if let Ok(Some(search)) = Expression::search(text) {
        let canonical = search.to_string();
        if canonical.len() <= TEXT_BYTES_MAX {
            assert_eq!(Expression::search(&canonical).unwrap(), Some(search), "{canonical:?} is another search");
        }
    }
    if text.len() <= 64 {
        let escaped: String = text.chars().flat_map(|character| ['\\', character]).collect();
        assert!(Pattern::like(&escaped).matches(text) && Pattern::contains(text).matches(text), "{text:?}");
    }
    0
}
