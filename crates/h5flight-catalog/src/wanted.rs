//! What a search may ask of a dataset: names, and the kinds of their values. Which SQL gives them is in
//! `portable/search.rs`.
//!
//! Numbers are compared as numbers, texts by their bytes; LIKE and CONTAINS do not mind the case of A to Z. What a dataset
//! does not have is NULL: no comparison with it is true.

use h5flight_array::Reason;
use h5flight_array::expression::{Expression, Literal, Test};

use crate::error::{Error, ErrorKind, Result};
use crate::names::{did_you_mean, nearest};
use crate::text;

/// In front of the name of an attribute.
const ATTRIBUTE: &str = "attr.";
/// Words of a search at most, and bytes of all of it.
const WORDS_MAX: usize = 16;
const QUERY_BYTES_MAX: usize = 1_024;

/// A value of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// A text or number that has a column, or the like of one: its SQL.
    Column(&'static str, Kind),
    /// Of the dataset itself, or of the group it is in.
    NeurodataType,
    /// Of the dataset itself, or of `starting_time` beside it.
    Rate,
    /// Number of axes.
    Rank,
    /// An attribute of the dataset.
    Attribute(&'a str),
    /// What the recording says of its session or subject.
    Detail(&'static str, Kind),
    /// The same, where that is a list of texts: a condition holds where it holds for one of them.
    Listed(&'static str),
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Text,
    Bool,
}

const NAMES: [(&str, Wanted<'static>); 37] = [
    ("animal", Wanted::Column("n.name", Kind::Text)),
    ("experiment", Wanted::Column("e.name", Kind::Text)),
    ("dataset", Wanted::Column("d.name", Kind::Text)),
    ("species", Wanted::Column("coalesce(e.species, n.species)", Kind::Text)),
    ("session_id", Wanted::Column("e.session_id", Kind::Text)),
    ("identifier", Wanted::Column("e.identifier", Kind::Text)),
    ("start_time", Wanted::Column("e.start_time", Kind::Text)),
    ("nwb_version", Wanted::Column("e.nwb_version", Kind::Text)),
    ("rows", Wanted::Column("v.rows", Kind::Number)),
    ("unit", Wanted::Attribute("unit")),
    ("neurodata_type", Wanted::NeurodataType),
    ("rate", Wanted::Rate),
    ("rank", Wanted::Rank),
    ("age", text_detail("age")),
    ("date_of_birth", text_detail("date_of_birth")),
    ("genotype", text_detail("genotype")),
    ("sex", text_detail("sex")),
    ("strain", text_detail("strain")),
    ("weight", text_detail("weight")),
    ("subject_description", text_detail("subject_description")),
    ("session_description", text_detail("session_description")),
    ("experiment_description", text_detail("experiment_description")),
    ("institution", text_detail("institution")),
    ("lab", text_detail("lab")),
    ("notes", text_detail("notes")),
    ("pharmacology", text_detail("pharmacology")),
    ("protocol", text_detail("protocol")),
    ("slices", text_detail("slices")),
    ("stimulus_notes", text_detail("stimulus_notes")),
    ("surgery", text_detail("surgery")),
    ("virus", text_detail("virus")),
    ("devices", Wanted::Listed("devices")),
    ("experimenter", Wanted::Listed("experimenter")),
    ("keywords", Wanted::Listed("keywords")),
    ("electrode_count", Wanted::Detail("electrode_count", Kind::Number)),
    ("trial_count", Wanted::Detail("trial_count", Kind::Number)),
    ("unit_count", Wanted::Detail("unit_count", Kind::Number)),
];

const fn text_detail(name: &'static str) -> Wanted<'static> {
    Wanted::Detail(name, Kind::Text)
}

/// Reads a search and checks that it can be asked.
///
/// # Errors
/// `bad_expression`, with the nearest names for one that there is not.
pub(crate) fn read(query: &str) -> Result<Option<Expression>> {
    let query = text::asked(query);
    if query.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid(format!("a search has at most {WORDS_MAX} words and {QUERY_BYTES_MAX} bytes")));
    }
    let found = Expression::search(&query).map_err(|error| refused(error.message))?;
    if let Some(expression) = &found {
        let mut words = 0;
        check(expression, &mut words)?;
        if words > WORDS_MAX {
            return Err(Error::invalid(format!("a search has at most {WORDS_MAX} words and {QUERY_BYTES_MAX} bytes")));
        }
    }
    Ok(found)
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused(Reason::BadExpression.as_str().to_owned()), message)
}

fn check(expression: &Expression, words: &mut usize) -> Result<()> {
    match expression {
        Expression::All(members) | Expression::Any(members) => {
            members.iter().try_for_each(|member| check(member, words))
        }
        Expression::Not(inner) => check(inner, words),
        Expression::Word(word) => {
            *words += word.split_whitespace().count().max(1);
            Ok(())
        }
        Expression::Condition { name, test } => {
            let wanted = Wanted::of(name)?;
            let Some(asked) = kind_of(name, test)? else { return Ok(()) };
            match wanted.kind() {
                Some(kind) if kind != asked => {
                    Err(refused(format!("{name:?} is {}, it is compared with {}", kind.as_str(), asked.as_str())))
                }
                Some(_) | None => Ok(()),
            }
        }
    }
}

/// The kind of what is compared with; `None` for IS NULL.
///
/// # Errors
/// `bad_expression` for values of several kinds.
pub(crate) fn kind_of(name: &str, test: &Test) -> Result<Option<Kind>> {
    let kinds: Vec<Kind> = match test {
        Test::IsNull => return Ok(None),
        Test::Like(_) | Test::Contains(_) => vec![Kind::Text],
        Test::Compare(_, literal) => vec![Kind::of(literal)],
        Test::In(literals) => literals.iter().map(Kind::of).collect(),
        Test::Between(low, high) => vec![Kind::of(low), Kind::of(high)],
    };
    match kinds.split_first() {
        Some((first, rest)) if rest.iter().all(|kind| kind == first) => Ok(Some(*first)),
        _ => Err(refused(format!("{name:?} is compared with values of several kinds"))),
    }
}

impl Kind {
    const fn of(literal: &Literal) -> Self {
        match literal {
            Literal::Integer(_) | Literal::Float(_) => Self::Number,
            Literal::Text(_) => Self::Text,
            Literal::Bool(_) => Self::Bool,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Bool => "true or false",
        }
    }
}

impl<'a> Wanted<'a> {
    /// What a name means.
    ///
    /// # Errors
    /// `bad_expression` with the nearest names.
    pub(crate) fn of(name: &'a str) -> Result<Self> {
        if let Some(attribute) = name.strip_prefix(ATTRIBUTE) {
            // SQLite's paths have no way to write a quote in a name.
            return match attribute.contains(['"', '\\']) || attribute.is_empty() {
                true => Err(refused(format!("an attribute of the name {attribute:?} cannot be searched for"))),
                false => Ok(Self::Attribute(attribute)),
            };
        }
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, wanted)| *wanted).ok_or_else(|| {
            let known: Vec<String> = NAMES.iter().map(|(known, _)| (*known).to_owned()).collect();
            let hint = did_you_mean(&nearest(name, &known));
            let known = known.join(", ");
            refused(format!("a search knows no {name:?}{hint} There are {known}, and attr.NAME for attributes"))
        })
    }

    /// How it is compared; `None` where that differs from dataset to dataset.
    const fn kind(self) -> Option<Kind> {
        match self {
            Self::Column(_, kind) | Self::Detail(_, kind) => Some(kind),
            Self::NeurodataType | Self::Listed(_) => Some(Kind::Text),
            Self::Rate | Self::Rank => Some(Kind::Number),
            Self::Attribute(_) => None,
        }
    }
}

/// The parts that hyphens leave of a word: all are looked for where the word itself is not found, so that "two-photon"
/// finds "TwoPhotonSeries". Other signs stay: names are full of them, and "mouse_1" means that one.
pub(crate) fn parts(word: &str) -> Vec<String> {
    let parts: Vec<String> = word.split('-').filter(|part| !part.is_empty()).map(str::to_lowercase).collect();
    if parts.len() > 1 { parts } else { Vec::new() }
}

/// A pattern of LIKE that both databases take: a backslash at its end stands for itself.
pub(crate) fn pattern(like: &str) -> String {
    let ends = like.chars().rev().take_while(|character| *character == '\\').count();
    if ends % 2 == 1 { format!("{like}\\") } else { like.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        for (query, told) in [
            ("specis = 'x'", "did you mean \"species\"?"),
            ("rate = 'x'", "\"rate\" is a number, it is compared with a text"),
            ("animal > 5", "\"animal\" is a text, it is compared with a number"),
            ("attr.x IN (1, 'a')", "values of several kinds"),
            ("(a", "expected ')'"),
        ] {
            let error = read(query).expect_err(query);
            assert_eq!(error.kind, ErrorKind::Refused("bad_expression".into()), "{query}");
            assert!(error.message.contains(told), "{query}: {}", error.message);
        }
        assert!(read("attr.x = 1 mouse unit = 'V'").unwrap().is_some());
        assert_eq!(read(" ").unwrap(), None);
    }

    #[test]
    fn hyphens_split_a_word_and_backslashes_are_completed() {
        assert_eq!(parts("Two-Photon"), ["two", "photon"]);
        assert!(parts("plain_word").is_empty() && parts("-").is_empty());
        assert_eq!((pattern("a\\").as_str(), pattern("a\\\\").as_str()), ("a\\\\", "a\\\\"));
    }
}
