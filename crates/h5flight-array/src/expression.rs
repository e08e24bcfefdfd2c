//! A predicate over named values, as text and as a typed tree: `start_time > 10 AND condition IN ('a', 'b')`.
//!
//! It filters the rows of tables and finds datasets in the catalogue. What lives here: the tree, its two grammars, its
//! canonical text, and what a comparison means ([`Literal::compare_integer`], [`Pattern`]). What never lives here: where
//! the values come from. It is in this crate because the lowest crates that need it, this one and the catalogue, share
//! no other; a crate of its own would forbid nothing more.
//!
//! ```text
//! any   = all { OR all }              all  = not { AND not }            not = NOT not | ( any ) | condition
//! condition = NAME op VALUE           op   = = | != | <> | < | <= | > | >=
//!           | NAME [NOT] IN ( VALUE, ... ) | NAME [NOT] BETWEEN VALUE AND VALUE
//!           | NAME [NOT] LIKE 'TEXT'  | NAME [NOT] CONTAINS 'TEXT'      | NAME IS [NOT] NULL
//! NAME  = letters, digits and _ . / | "anything, "" is a quote"
//! VALUE = 5 | -0.5e3 | 'text, '' is a quote' | true | false
//! ```
//!
//! In the grammar of a search, what is no condition is a word, and what stands side by side must hold together.
//! Keywords may be written in small letters; in a search of nothing but words they are words.
//!
//! It means what SQL means: of a value that is missing (a NaN is) no comparison is true, and no `NOT` of one.
//!
//! ```
//! use h5flight_array::expression::Expression;
//! let expression = Expression::filter("start_time>10 and not (correct = TRUE)")?;
//! assert_eq!(expression.to_string(), "start_time > 10 AND NOT correct = true");
//! assert_eq!(expression.names(), ["start_time", "correct"]);
//! # Ok::<(), h5flight_array::Error>(())
//! ```

mod evaluate;
mod lex;
mod parse;
mod pattern;

use std::cmp::Ordering;
use std::fmt;

pub use self::pattern::Pattern;
use crate::error::Result;

/// Bytes of an expression's text at most: room for a list of some ten thousand numbers.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Parentheses and NOTs in one another at most: it bounds the stack of whoever walks the tree.
pub const DEPTH_MAX: usize = 64;
/// Conditions and words at most.
pub const CONDITIONS_MAX: usize = 1_000;

/// A predicate. AND and OR have at least two members, none of their own kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// All hold.
    All(Vec<Expression>),
    /// At least one holds.
    Any(Vec<Expression>),
    /// It is false; unknown stays unknown.
    Not(Box<Expression>),
    /// Something of a named value.
    Condition {
        /// Of which value.
        name: String,
        /// What.
        test: Test,
    },
    /// A word, or several with blanks between; only in a search.
    Word(String),
}

/// What a condition asks of its value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// A comparison.
    Compare(Comparison, Literal),
    /// It equals one of them; at least one.
    In(Vec<Literal>),
    /// Both ends included.
    Between(Literal, Literal),
    /// Text of this form: `%` is any text, `_` any character, a backslash takes away the meaning of the next.
    Like(String),
    /// Text with this in it.
    Contains(String),
    /// There is no value, or it is a NaN.
    IsNull,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A whole number, as large as one of 64 bits can be, signed or not.
    Integer(i128),
    /// A finite number that was written with a point or an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
}

impl Expression {
    /// Reads a predicate over the columns of a table.
    ///
    /// # Errors
    /// `bad_expression`, with the position of the first character that is wrong, counted from 1.
    pub fn filter(text: &str) -> Result<Self> {
        parse::filter(text)
    }

    /// Reads what is searched for; `None` is everything.
    ///
    /// # Errors
    /// As [`Self::filter`].
    pub fn search(text: &str) -> Result<Option<Self>> {
        parse::search(text)
    }

    /// The names of its conditions, each once, in order of first use.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |expression| {
            if let Self::Condition { name, .. } = expression
                && !names.contains(&name.as_str())
            {
                names.push(name.as_str());
            }
        });
        names
    }

    fn visit<'a>(&'a self, seen: &mut impl FnMut(&'a Self)) {
        seen(self);
        match self {
            Self::All(members) | Self::Any(members) => members.iter().for_each(|member| member.visit(seen)),
            Self::Not(inner) => inner.visit(seen),
            Self::Condition { .. } | Self::Word(_) => {}
        }
    }

    /// All of them, in one level.
    pub(crate) fn all(members: Vec<Self>) -> Self {
        Self::joined(members, Self::All, |member| match member {
            Self::All(inner) => Ok(inner),
            other => Err(other),
        })
    }

    /// Any of them, in one level.
    pub(crate) fn any(members: Vec<Self>) -> Self {
        Self::joined(members, Self::Any, |member| match member {
            Self::Any(inner) => Ok(inner),
            other => Err(other),
        })
    }

    fn joined(
        members: Vec<Self>,
        join: fn(Vec<Self>) -> Self,
        open: impl Fn(Self) -> std::result::Result<Vec<Self>, Self>,
    ) -> Self {
        let mut flat = Vec::with_capacity(members.len());
        for member in members {
            match open(member) {
                Ok(inner) => flat.extend(inner),
                Err(other) => flat.push(other),
            }
        }
        match flat.len() {
            1 => flat.remove(0),
            _ => join(flat),
        }
    }
}

impl Comparison {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Whether values that are ordered like this compare so.
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Literal {
    /// How a whole number stands to this one, exactly; `None` where this is no number.
    pub fn compare_integer(&self, value: i128) -> Option<Ordering> {
        match self {
            Self::Integer(number) => Some(value.cmp(number)),
            Self::Float(number) => Some(integer_to_float(value, *number)),
            Self::Text(_) | Self::Bool(_) => None,
        }
    }

    /// How a float stands to this one, exactly; `None` where one of both is no number.
    pub fn compare_float(&self, value: f64) -> Option<Ordering> {
        match self {
            Self::Integer(number) if !value.is_nan() => Some(integer_to_float(*number, value).reverse()),
            Self::Float(number) => value.partial_cmp(number),
            Self::Integer(_) | Self::Text(_) | Self::Bool(_) => None,
        }
    }

    /// What kind of value it is, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bool(_) => "true or false",
        }
    }
}

/// A conversion to float would round whole numbers beyond 2^53: they would equal their neighbours.
fn integer_to_float(integer: i128, float: f64) -> Ordering {
    let floor = float.floor();
    // Saturates, and no integer here is near the ends.
    integer.cmp(&(floor as i128)).then(if float > floor { Ordering::Less } else { Ordering::Equal })
}

/// The canonical text: what it parses to is equal.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(members) => write_joined(f, members, " AND ", |member| matches!(member, Self::Any(_))),
            Self::Any(members) => write_joined(f, members, " OR ", |_| false),
            Self::Not(inner) if matches!(**inner, Self::All(_) | Self::Any(_)) => write!(f, "NOT ({inner})"),
            Self::Not(inner) => write!(f, "NOT {inner}"),
            Self::Condition { name, test } => {
                write_name(f, name)?;
                write!(f, " {test}")
            }
            Self::Word(word) => write_text(f, word),
        }
    }
}

fn write_joined(
    f: &mut fmt::Formatter<'_>,
    members: &[Expression],
    between: &str,
    needs_parentheses: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            f.write_str(between)?;
        }
        if needs_parentheses(member) { write!(f, "({member})")? } else { write!(f, "{member}")? }
    }
    Ok(())
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if lex::is_plain_name(name) { f.write_str(name) } else { write!(f, "\"{}\"", name.replace('"', "\"\"")) }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "'{}'", text.replace('\'', "''"))
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(comparison, value) => write!(f, "{} {value}", comparison.as_str()),
            Self::In(values) => {
                f.write_str("IN (")?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Self::Between(low, high) => write!(f, "BETWEEN {low} AND {high}"),
            Self::Like(pattern) => {
                f.write_str("LIKE ")?;
                write_text(f, pattern)
            }
            Self::Contains(text) => {
                f.write_str("CONTAINS ")?;
                write_text(f, text)
            }
            Self::IsNull => f.write_str("IS NULL"),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            // Debug writes a point or an exponent, and the fewest digits that mean the same number.
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Text(text) => write_text(f, text),
            Self::Bool(truth) => write!(f, "{truth}"),
        }
    }
}
