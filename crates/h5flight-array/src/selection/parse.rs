//! The text form of a selection, read by hand in one pass.

use super::{Item, Part, Points, Selection};
use crate::error::{Error, Reason, Result};
use crate::meta::RANK_MAX;

/// How many characters of an unexpected word are shown.
const SHOWN_CHARS: usize = 20;

pub(super) fn parse(text: &str) -> Result<Selection> {
    let mut parser = Parser { text, at: 0 };
    let (mut items, mut fields, mut points) = (Vec::new(), Vec::new(), None);
    parser.blanks();
    if parser.takes("()") {
        parser.blanks();
        parser.end("the end of the selection")?;
        return Ok(Selection::all());
    }
    while parser.peek().is_some() {
        match parser.peek() {
            Some('"' | '\'') => fields.push(parser.quoted()?),
            Some('p') if points.is_none() && items.is_empty() => points = Some(parser.points()?),
            _ if points.is_some() => return Err(parser.expected("nothing besides points but quoted field names")),
            Some('p') => return Err(parser.expected("an index: points take the place of all axes")),
            // A text of millions of items is refused by the first one too many.
            _ if items.len() > RANK_MAX + 1 => return Selection::new(items, fields),
            _ => items.push(parser.item()?),
        }
        parser.blanks();
        if !parser.takes(",") {
            parser.end("',' or the end of the selection")?;
        }
        parser.blanks();
    }
    match points {
        Some(points) => Selection::of(Part::Points(points), fields),
        None => Selection::new(items, fields),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Next byte, at a character's start.
    at: usize,
}

impl<'a> Parser<'a> {
    fn item(&mut self) -> Result<Item> {
        const EXPECTED: &str = "an index, a slice, a list, '...', points[...] or a quoted field name";
        match self.peek() {
            Some('[') => self.list(),
            Some('.') if self.takes("...") => Ok(Item::Ellipsis),
            Some('+' | '-' | ':' | '0'..='9') => self.index_or_slice(),
            _ if self.takes("None") || self.takes("newaxis") || self.takes("np.newaxis") => {
                Err(Error::new(Reason::BadSelection, "new axes (None, newaxis) are not supported"))
            }
            _ => Err(self.expected(EXPECTED)),
        }
    }

    fn index_or_slice(&mut self) -> Result<Item> {
        let position = self.at;
        let start = self.bound()?;
        if !self.takes(":") {
            self.at = position;
            return self.number().map(Item::Index);
        }
        self.blanks();
        let stop = self.bound()?;
        if !self.takes(":") {
            return Ok(Item::Slice { start, stop, step: None });
        }
        self.blanks();
        let step_at = self.at;
        let step = self.bound()?;
        if step == Some(0) {
            let position = self.position_of(step_at);
            let message = format!("selection, character {position}: a step of 0, expected another number");
            return Err(Error::new(Reason::BadSelection, message));
        }
        Ok(Item::Slice { start, stop, step })
    }

    /// `[1, 5, 7]` or `[True, False]`; a comma may follow the last entry.
    fn list(&mut self) -> Result<Item> {
        self.at += 1;
        self.blanks();
        match self.peek() {
            Some('T' | 'F' | 't' | 'f') => self.entries(Self::truth).map(Item::Mask),
            _ => self.entries(Self::number).map(Item::List),
        }
    }

    /// `points[[0, 1], [5, 2]]`
    fn points(&mut self) -> Result<Points> {
        if !self.takes("points") {
            return Err(self.expected("points"));
        }
        self.blanks();
        if self.peek() != Some('[') {
            return Err(self.expected("'[' and points, like points[[0, 1], [5, 2]]"));
        }
        self.at += 1;
        let (mut rank, mut coordinates, mut count) = (0, Vec::new(), 0);
        self.entries(|parser| {
            if !parser.takes("[") {
                return Err(parser.expected("'[' and the coordinates of a point"));
            }
            let point_at = parser.at;
            let point = parser.entries(Self::number)?;
            if point.is_empty() || (count > 0 && point.len() != rank) {
                let position = parser.position_of(point_at);
                let (found, wanted) = (point.len(), if count == 0 { "at least 1".into() } else { rank.to_string() });
                let message = format!(
                    "selection, character {position}: point {count} has {found} coordinates, expected {wanted}"
                );
                return Err(Error::new(Reason::BadSelection, message));
            }
            (rank, count) = (point.len(), count + 1);
            coordinates.extend(point);
            Ok(())
        })?;
        Points::new(rank, coordinates)
    }

    fn entries<T>(&mut self, mut entry: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut entries = Vec::new();
        loop {
            self.blanks();
            if self.takes("]") {
                return Ok(entries);
            }
            entries.push(entry(self)?);
            self.blanks();
            if !self.takes(",") && self.peek() != Some(']') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn truth(&mut self) -> Result<bool> {
        if self.takes("True") || self.takes("true") {
            Ok(true)
        } else if self.takes("False") || self.takes("false") {
            Ok(false)
        } else {
            Err(self.expected("True or False"))
        }
    }

    fn number(&mut self) -> Result<i64> {
        self.optional_number()?.ok_or_else(|| self.expected("a number"))
    }

    /// A number and the blanks behind it, or nothing.
    fn optional_number(&mut self) -> Result<Option<i64>> {
        let Some(word) = self.number_word()? else { return Ok(None) };
        let Ok(number) = word.parse() else {
            let (position, start) = (self.position(), &word[..word.len().min(SHOWN_CHARS)]);
            let message = format!("selection, character {position}: the number {start} does not fit 64 bits");
            return Err(Error::new(Reason::BadSelection, message));
        };
        self.pass(word);
        Ok(Some(number))
    }

    /// A bound or step of a slice. Those of more than 64 bits lie beyond every axis: they are clipped, as numpy does.
    fn bound(&mut self) -> Result<Option<i64>> {
        let Some(word) = self.number_word()? else { return Ok(None) };
        self.pass(word);
        let beyond = if word.starts_with('-') { i64::MIN } else { i64::MAX };
        Ok(Some(word.parse().unwrap_or(beyond)))
    }

    fn pass(&mut self, word: &str) {
        self.at += word.len();
        self.blanks();
    }
    /// A name in double or single quotes; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<String> {
        let quote = self.peek();
        let mut name = String::new();
        let mut characters = self.text[self.at + 1..].char_indices();
        while let Some((offset, character)) = characters.next() {
            if Some(character) == quote {
                self.at += 1 + offset + 1;
                return Ok(name);
            }
            let taken = if character == '\\' { characters.next().map(|(_, next)| next) } else { Some(character) };
            name.extend(taken);
        }
        Err(Error::new(
            Reason::BadSelection,
            format!("selection, character {}: the quoted field name does not end", self.position()),
        ))
    }

    /// The sign and the digits that come next; `None` where there are neither.
    fn number_word(&self) -> Result<Option<&'a str>> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.starts_with(['+', '-']));
        match rest[sign..].bytes().take_while(u8::is_ascii_digit).count() {
            0 if sign == 0 => Ok(None),
            0 => Err(self.expected("a number")),
            digits => Ok(Some(&rest[..sign + digits])),
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn end(&self, expected: &str) -> Result<()> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// For errors only: it counts all characters in front.
    fn position(&self) -> usize {
        self.position_of(self.at)
    }

    fn position_of(&self, at: usize) -> usize {
        self.text[..at].chars().count() + 1
    }

    fn expected(&self, what: &str) -> Error {
        let found: String = self.text[self.at..].chars().take(SHOWN_CHARS).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
        let message = format!("selection, character {}: expected {what}, found {found}", self.position());
        Error::new(Reason::BadSelection, message)
    }
}
