//! The text of an expression in pieces, each with its place.

use super::TEXT_BYTES_MAX;
use crate::error::{Error, Reason, Result};

/// Words that mean something, in capitals.
pub(super) const KEYWORDS: [&str; 11] =
    ["AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "CONTAINS", "IS", "NULL", "TRUE", "FALSE"];
/// How many characters of an unexpected piece are shown.
const SHOWN_CHARS: usize = 20;

/// What the pieces may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    Filter,
    Search,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A name, keyword or, in a search, any other word.
    Word(&'a str),
    /// In double quotes.
    Quoted(String),
    /// In single quotes.
    Text(String),
    /// What begins like a number; whether it is one is seen where a number is wanted.
    Number(&'a str),
    /// `=`, `(` and the like.
    Symbol(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    pub(super) token: Token<'a>,
    /// First byte.
    pub(super) at: usize,
}

/// Whether a name needs no quotes.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(starts_name)
        && characters.all(continues_name)
        && !KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name))
}

fn starts_name(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn continues_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.' | '/')
}

/// In a search a word goes on to the next blank or sign that means something.
fn continues_word(character: char) -> bool {
    !character.is_whitespace() && !matches!(character, '(' | ')' | '=' | '!' | '<' | '>' | ',')
}

pub(super) fn pieces(text: &str, grammar: Grammar) -> Result<Vec<Piece<'_>>> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("an expression of {} bytes, at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(Error::new(Reason::BadExpression, message));
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        if character.is_whitespace() {
            at += character.len_utf8();
            continue;
        }
        let (token, bytes) = piece(text, at, grammar)?;
        pieces.push(Piece { token, at });
        at += bytes;
    }
    Ok(pieces)
}

/// The piece that begins here, and its length.
fn piece(text: &str, at: usize, grammar: Grammar) -> Result<(Token<'_>, usize)> {
    const SYMBOLS: [&str; 10] = ["<=", ">=", "!=", "<>", "=", "<", ">", "(", ")", ","];
    let rest = &text[at..];
    let first = rest.chars().next().unwrap_or(' ');
    if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        return Ok((Token::Symbol(symbol), symbol.len()));
    }
    let length = |continues: fn(char) -> bool| rest.find(|character| !continues(character)).unwrap_or(rest.len());
    let is_number = |word: &str| word.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit());
    match (first, grammar) {
        ('\'', _) => quoted(text, at).map(|(inner, bytes)| (Token::Text(inner), bytes)),
        ('"', _) => quoted(text, at).map(|(inner, bytes)| (Token::Quoted(inner), bytes)),
        ('!', _) => Err(expected(text, at, "'!='")),
        (_, Grammar::Search) => {
            let word = &rest[..length(continues_word)];
            let token = if is_number(word) { Token::Number(word) } else { Token::Word(word) };
            Ok((token, word.len()))
        }
        (first, Grammar::Filter) if starts_name(first) => {
            let word = &rest[..length(continues_name)];
            Ok((Token::Word(word), word.len()))
        }
        ('+' | '-' | '.' | '0'..='9', Grammar::Filter) => {
            let word = &rest[..length(|c| c.is_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'))];
            Ok((Token::Number(word), word.len()))
        }
        (_, Grammar::Filter) => Err(expected(text, at, "a name, a value or an operator")),
    }
}

/// What is between quotes, where a doubled one is one; and the length with the quotes.
fn quoted(text: &str, at: usize) -> Result<(String, usize)> {
    let quote = char::from(text.as_bytes()[at]);
    let mut inner = String::new();
    let mut characters = text[at + 1..].char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return Ok((inner, offset + 2));
        }
        inner.push(character);
    }
    let message = format!("expression, character {}: what begins with {quote} does not end", position(text, at));
    Err(Error::new(Reason::BadExpression, message))
}

/// For errors only: it counts all characters in front.
pub(super) fn position(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}

pub(super) fn expected(text: &str, at: usize, what: &str) -> Error {
    let found: String = text[at..].chars().take(SHOWN_CHARS).collect();
    let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
    let message = format!("expression, character {}: expected {what}, found {found}", position(text, at));
    Error::new(Reason::BadExpression, message)
}
