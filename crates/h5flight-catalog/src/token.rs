//! The text of an access token: `h5f_` + 8 characters of prefix + `_` + 43 characters of secret.
//!
//! The prefix names the token in lists and finds its row; the secret is 256 random bits. Only the hash of the whole
//! text is stored. blake3 without salt or stretching is enough: nobody guesses 256 bits.

use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::error::{Error, ErrorKind, Result};

const START: &str = "h5f_";
const PREFIX_CHARS: usize = 8;
const SECRET_CHARS: usize = 43;
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters of prefixes: none that a shell or an option parser could take for something else.
const PREFIX_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A token, apart.
pub(crate) struct TokenText {
    /// The whole text: secret.
    pub(crate) text: String,
    /// Its public part.
    pub(crate) prefix: String,
}

impl TokenText {
    /// A new random token.
    ///
    /// # Errors
    /// [`ErrorKind::Database`] when the operating system gives no random bytes.
    pub(crate) fn random() -> Result<Self> {
        let prefix: String = random_bytes::<PREFIX_CHARS>()?
            .iter()
            .map(|byte| char::from(PREFIX_ALPHABET[usize::from(byte % 32)]))
            .collect();
        let text = format!("{START}{prefix}_{}", base64url(&random_bytes::<32>()?));
        Ok(Self { text, prefix })
    }

    /// `text` apart, if it has the form of a token.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(START)?;
        if !rest.is_ascii() || rest.len() != PREFIX_CHARS + 1 + SECRET_CHARS {
            return None;
        }
        let (prefix, secret) = rest.split_at(PREFIX_CHARS);
        let secret = secret.strip_prefix('_')?;
        let valid = prefix.bytes().all(|byte| PREFIX_ALPHABET.contains(&byte))
            && secret.bytes().all(|byte| BASE64URL.contains(&byte));
        valid.then(|| Self { text: text.to_owned(), prefix: prefix.to_owned() })
    }

    /// What is stored of it.
    pub(crate) fn hash(&self) -> blake3::Hash {
        blake3::hash(self.text.as_bytes())
    }

    /// Whether `stored` is its hash; takes the same time wherever they differ (blake3's own comparison).
    pub(crate) fn matches(&self, stored: &[u8]) -> bool {
        <[u8; 32]>::try_from(stored).is_ok_and(|stored| self.hash() == blake3::Hash::from_bytes(stored))
    }
}

/// Bytes from the operating system's generator.
///
/// # Errors
/// [`ErrorKind::Database`] when it has none.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Database, "no random bytes from the operating system").with_source(error)
    })?;
    Ok(bytes)
}

/// RFC 4648 section 5 without padding.
fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..=group.len() {
            text.push(char::from(BASE64URL[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_the_one_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("\u{3ff}>", "z78-")]
        {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_token_is_parsed_and_matches_its_own_hash_only() {
        let (token, other) = (TokenText::random().unwrap(), TokenText::random().unwrap());
        let parsed = TokenText::parse(&token.text).unwrap();
        assert_eq!((token.text.len(), &parsed.prefix), (56, &token.prefix));
        assert!(parsed.matches(token.hash().as_bytes()));
        assert!(!parsed.matches(other.hash().as_bytes()));
        assert!(!parsed.matches(b""));
        for bad in ["", "h5f_", &token.text[1..], &token.text[..55], &format!("{}x", token.text), &"ä".repeat(28)] {
            assert!(TokenText::parse(bad).is_none(), "{bad}");
        }
    }
}
