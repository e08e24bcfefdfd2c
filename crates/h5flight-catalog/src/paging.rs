//! Pages of long lists: a page continues after the key of the last entry shown, so that entries that come or go in
//! between shift nothing. Tokens are opaque to clients and stay valid for ever.

use crate::error::{Error, Result};
use crate::model::{Page, Paged};

/// Entries of a page where the caller names no number.
const SIZE_DEFAULT: u32 = 100;
/// Entries of a page at most.
const SIZE_MAX: u32 = 1_000;
/// Bytes of a token at most: the longest names there are, as JSON with every byte escaped, as hex.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// A page asked for, understood.
pub(crate) struct Request<const N: usize> {
    list: &'static str,
    size: usize,
    /// Key of the entry after which the page begins; empty texts for the first page.
    pub(crate) after: [String; N],
}

impl<const N: usize> Request<N> {
    /// Understands `page` of the list called `list`, whose keys have `N` parts.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a token that this list never gave.
    pub(crate) fn parse(list: &'static str, page: &Page) -> Result<Self> {
        let size = match page.size {
            0 => SIZE_DEFAULT,
            size => size.min(SIZE_MAX),
        };
        let after = match page.token.as_str() {
            "" => std::array::from_fn(|_| String::new()),
            token => decode(list, token).ok_or_else(|| Error::invalid("the page token is not one of this list"))?,
        };
        Ok(Self { list, size: size as usize, after })
    }

    /// Entries to fetch: one more than the page shows, to know whether it is the last.
    pub(crate) fn limit(&self) -> i64 {
        self.size as i64 + 1
    }

    /// The page of what was fetched with [`Request::limit`]; `key` tells an entry's key.
    pub(crate) fn page<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> [&str; N]) -> Paged<T> {
        let more = items.len() > self.size;
        items.truncate(self.size);
        let next = items.last().filter(|_| more).map(|last| encode(self.list, key(last))).unwrap_or_default();
        Paged { items, next }
    }
}

fn encode<const N: usize>(list: &str, key: [&str; N]) -> String {
    let parts: Vec<&str> = std::iter::once(list).chain(key).collect();
    let json = serde_json::to_vec(&parts).expect("texts are always JSON");
    json.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode<const N: usize>(list: &str, token: &str) -> Option<[String; N]> {
    if token.len() > TOKEN_BYTES_MAX
        || !token.len().is_multiple_of(2)
        || !token.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return None;
    }
    let json: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|at| u8::from_str_radix(&token[at..at + 2], 16).ok()).collect();
    let mut parts: Vec<String> = serde_json::from_slice(&json?).ok()?;
    if parts.len() != N + 1 || parts[0] != list || parts.iter().any(|part| part.contains('\0')) {
        return None;
    }
    parts.remove(0);
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_returns_its_key_in_its_own_list_only(a in "[^\0]{0,20}", b in "[^\0]{0,20}") {
            let token = encode("search", [a.as_str(), b.as_str()]);
            prop_assert_eq!(decode("search", &token), Some([a, b]));
            prop_assert_eq!(decode::<2>("files", &token), None);
            prop_assert_eq!(decode::<1>("search", &token), None);
        }

        #[test]
        fn any_text_is_a_token_or_an_error_never_a_panic(token in ".{0,60}", hex in "[0-9a-f]{0,60}") {
            prop_assert_eq!(decode::<1>("animals", &token), None);
            let _ = decode::<1>("animals", &hex);
        }
    }

    #[test]
    fn only_a_page_with_more_behind_it_has_a_token() {
        let request = Request::<1>::parse("animals", &Page { size: 2, token: String::new() }).unwrap();
        assert_eq!(request.limit(), 3);
        let key = |name: &String| -> [String; 1] { [name.clone()] };
        let names = |count: usize| -> Vec<String> { (0..count).map(|n| n.to_string()).collect() };
        assert_eq!(request.page(names(2), |n| [n.as_str()]).next, "");
        let page = request.page(names(3), |n| [n.as_str()]);
        assert_eq!(page.items, names(2));
        let next = Request::<1>::parse("animals", &Page { size: 5_000, token: page.next }).unwrap();
        assert_eq!((next.after.clone(), next.limit()), (key(&"1".into()), 1_001));
    }
}
