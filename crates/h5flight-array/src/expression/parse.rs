//! Pieces become a tree, by recursive descent with a bound on the depth.

use super::lex::{self, Grammar, KEYWORDS, Piece, Token};
use super::{CONDITIONS_MAX, Comparison, DEPTH_MAX, Expression, Literal, Test};
use crate::error::{Error, Reason, Result};

pub(super) fn filter(text: &str) -> Result<Expression> {
    let pieces = lex::pieces(text, Grammar::Filter)?;
    Parser { text, pieces, next: 0, depth: 0, conditions: 0, grammar: Grammar::Filter }.whole()
}

pub(super) fn search(text: &str) -> Result<Option<Expression>> {
    let pieces = lex::pieces(text, Grammar::Search)?;
    if pieces.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { text, pieces, next: 0, depth: 0, conditions: 0, grammar: Grammar::Search };
    if parser.has_only_words() { parser.words().map(Some) } else { parser.whole().map(Some) }
}

struct Parser<'a> {
    text: &'a str,
    pieces: Vec<Piece<'a>>,
    next: usize,
    depth: usize,
    conditions: usize,
    grammar: Grammar,
}

impl<'a> Parser<'a> {
    fn whole(mut self) -> Result<Expression> {
        let expression = self.any()?;
        match self.peek(0) {
            None => Ok(expression),
            Some(_) if self.grammar == Grammar::Search => Err(self.expected("a condition or a word")),
            Some(_) => Err(self.expected("AND, OR or the end")),
        }
    }

    /// Nothing in it is a comparison, a parenthesis, a connective in capitals or the beginning of another condition.
    fn has_only_words(&self) -> bool {
        (0..self.pieces.len()).all(|at| match &self.pieces[at].token {
            Token::Symbol(",") | Token::Text(_) | Token::Number(_) => true,
            Token::Symbol(_) | Token::Word("AND" | "OR" | "NOT") => false,
            Token::Word(_) | Token::Quoted(_) => !self.begins_test_at(at),
        })
    }

    fn words(&mut self) -> Result<Expression> {
        let mut words = Vec::new();
        while let Some(piece) = self.pieces.get(self.next) {
            words.extend(match &piece.token {
                Token::Word(word) | Token::Number(word) => Some((*word).to_owned()),
                Token::Quoted(word) | Token::Text(word) => Some(word.clone()),
                Token::Symbol(_) => None,
            });
            self.count_condition()?;
            self.next += 1;
        }
        match words.is_empty() {
            true => Err(lex::expected(self.text, 0, "a condition or a word")),
            false => Ok(Expression::all(words.into_iter().map(Expression::Word).collect())),
        }
    }

    fn any(&mut self) -> Result<Expression> {
        let mut members = vec![self.all()?];
        while self.takes_keyword("OR") {
            members.push(self.all()?);
        }
        Ok(Expression::any(members))
    }

    fn all(&mut self) -> Result<Expression> {
        let mut members = vec![self.not()?];
        loop {
            let goes_on = self.takes_keyword("AND") || self.grammar == Grammar::Search && self.begins_term();
            if !goes_on {
                return Ok(Expression::all(members));
            }
            members.push(self.not()?);
        }
    }

    /// Whether what comes can stand beside what was before, in a search.
    fn begins_term(&self) -> bool {
        match self.peek(0) {
            None => false,
            Some(Token::Symbol(symbol)) => *symbol == "(",
            Some(Token::Word(word)) => !word.eq_ignore_ascii_case("OR"),
            Some(Token::Quoted(_) | Token::Text(_) | Token::Number(_)) => true,
        }
    }

    fn not(&mut self) -> Result<Expression> {
        if self.depth >= DEPTH_MAX {
            let position = lex::position(self.text, self.place());
            let message = format!("expression, character {position}: deeper than {DEPTH_MAX} parentheses and NOTs");
            return Err(Error::new(Reason::BadExpression, message));
        }
        self.depth += 1;
        let inner = if self.takes_keyword("NOT") {
            self.not().map(|inner| Expression::Not(Box::new(inner)))
        } else if self.takes_symbol("(") {
            self.any().and_then(|inner| self.wants_symbol(")").map(|()| inner))
        } else {
            self.condition()
        };
        self.depth -= 1;
        inner
    }

    fn condition(&mut self) -> Result<Expression> {
        self.count_condition()?;
        let name = match self.peek(0) {
            Some(Token::Word(word)) if self.grammar == Grammar::Search || !is_keyword(word) => (*word).to_owned(),
            Some(Token::Quoted(name)) => name.clone(),
            Some(Token::Number(word)) if self.grammar == Grammar::Search => (*word).to_owned(),
            Some(Token::Text(text)) if self.grammar == Grammar::Search => text.clone(),
            _ if self.grammar == Grammar::Search => return Err(self.expected("a condition or a word")),
            _ => return Err(self.expected("a name")),
        };
        let is_name = matches!(self.peek(0), Some(Token::Word(_) | Token::Quoted(_)));
        if self.grammar == Grammar::Search && !(is_name && self.begins_test_at(self.next)) {
            self.next += 1;
            return Ok(Expression::Word(name));
        }
        self.next += 1;
        self.tested(name)
    }

    /// Whether the piece behind this one begins a test of it: `spikes in cortex` is three words, `id in (1, 2)` is not.
    fn begins_test_at(&self, at: usize) -> bool {
        let token = |ahead: usize| self.pieces.get(at + ahead).map(|piece| &piece.token);
        let is_value = |token: Option<&Token<'_>>| match token {
            Some(Token::Text(_) | Token::Number(_)) => true,
            Some(Token::Word(word)) => truth(word).is_some(),
            Some(Token::Quoted(_) | Token::Symbol(_)) | None => false,
        };
        let (test, behind) = match token(1) {
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("NOT") => (token(2), 3),
            test => (test, 2),
        };
        match test {
            Some(Token::Symbol(symbol)) => behind == 2 && comparison(symbol).is_some(),
            Some(Token::Word(word)) => match word.to_ascii_uppercase().as_str() {
                "IN" => token(behind) == Some(&Token::Symbol("(")),
                "LIKE" | "CONTAINS" => matches!(token(behind), Some(Token::Text(_))),
                "BETWEEN" => is_value(token(behind)),
                "IS" if is_word(token(2), "NOT") => is_word(token(3), "NULL"),
                "IS" => is_word(token(2), "NULL"),
                _ => false,
            },
            _ => false,
        }
    }

    fn tested(&mut self, name: String) -> Result<Expression> {
        if let Some(Token::Symbol(symbol)) = self.peek(0)
            && let Some(comparison) = comparison(symbol)
        {
            self.next += 1;
            let test = Test::Compare(comparison, self.value()?);
            return Ok(Expression::Condition { name, test });
        }
        if self.takes_keyword("IS") {
            let negated = self.takes_keyword("NOT");
            self.wants_keyword("NULL")?;
            return Ok(condition(name, Test::IsNull, negated));
        }
        let negated = self.takes_keyword("NOT");
        let test = if self.takes_keyword("IN") {
            self.wants_symbol("(")?;
            Test::In(self.values()?)
        } else if self.takes_keyword("BETWEEN") {
            let low = self.value()?;
            self.wants_keyword("AND")?;
            Test::Between(low, self.value()?)
        } else if self.takes_keyword("LIKE") {
            Test::Like(self.text_value()?)
        } else if self.takes_keyword("CONTAINS") {
            Test::Contains(self.text_value()?)
        } else {
            return Err(self.expected("a comparison, IN, BETWEEN, LIKE, CONTAINS or IS NULL"));
        };
        Ok(condition(name, test, negated))
    }

    fn values(&mut self) -> Result<Vec<Literal>> {
        let mut values = vec![self.value()?];
        while !self.takes_symbol(")") {
            if !self.takes_symbol(",") {
                return Err(self.expected("',' or ')'"));
            }
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn value(&mut self) -> Result<Literal> {
        const EXPECTED: &str = "a number of 64 bits, a text in single quotes, true or false";
        let value = match self.peek(0) {
            Some(Token::Text(text)) => Literal::Text(text.clone()),
            Some(Token::Number(word)) => number(word).ok_or_else(|| self.expected(EXPECTED))?,
            Some(Token::Word(word)) => Literal::Bool(truth(word).ok_or_else(|| self.expected(EXPECTED))?),
            Some(Token::Quoted(_) | Token::Symbol(_)) | None => return Err(self.expected(EXPECTED)),
        };
        self.next += 1;
        Ok(value)
    }

    fn text_value(&mut self) -> Result<String> {
        match self.peek(0) {
            Some(Token::Text(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.expected("a text in single quotes")),
        }
    }

    fn count_condition(&mut self) -> Result<()> {
        self.conditions += 1;
        if self.conditions <= CONDITIONS_MAX {
            return Ok(());
        }
        let message = format!("an expression has at most {CONDITIONS_MAX} conditions");
        Err(Error::new(Reason::BadExpression, message))
    }

    fn peek(&self, ahead: usize) -> Option<&Token<'a>> {
        self.pieces.get(self.next + ahead).map(|piece| &piece.token)
    }

    fn takes_keyword(&mut self, keyword: &str) -> bool {
        let found = is_word(self.peek(0), keyword);
        self.next += usize::from(found);
        found
    }

    fn wants_keyword(&mut self, keyword: &str) -> Result<()> {
        if self.takes_keyword(keyword) { Ok(()) } else { Err(self.expected(keyword)) }
    }

    fn takes_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(0), Some(Token::Symbol(next)) if *next == symbol);
        self.next += usize::from(found);
        found
    }

    fn wants_symbol(&mut self, symbol: &str) -> Result<()> {
        if self.takes_symbol(symbol) { Ok(()) } else { Err(self.expected(&format!("'{symbol}'"))) }
    }

    fn place(&self) -> usize {
        self.pieces.get(self.next).map_or(self.text.len(), |piece| piece.at)
    }

    fn expected(&self, what: &str) -> Error {
        lex::expected(self.text, self.place(), what)
    }
}

fn condition(name: String, test: Test, negated: bool) -> Expression {
    let condition = Expression::Condition { name, test };
    if negated { Expression::Not(Box::new(condition)) } else { condition }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

fn is_word(token: Option<&Token<'_>>, keyword: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword))
}

fn truth(word: &str) -> Option<bool> {
    match word {
        _ if word.eq_ignore_ascii_case("true") => Some(true),
        _ if word.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn comparison(symbol: &str) -> Option<Comparison> {
    match symbol {
        "=" => Some(Comparison::Equal),
        "!=" | "<>" => Some(Comparison::NotEqual),
        "<" => Some(Comparison::Less),
        "<=" => Some(Comparison::LessOrEqual),
        ">" => Some(Comparison::Greater),
        ">=" => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}

fn number(word: &str) -> Option<Literal> {
    if let Ok(integer) = word.parse::<i128>() {
        let fits = (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&integer);
        return fits.then_some(Literal::Integer(integer));
    }
    // Rust would also take words like "inf".
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    let float = word.parse::<f64>().ok().filter(|float| is_plain && float.is_finite())?;
    // A word of digits only would have been taken as an integer if it were one.
    word.contains(['.', 'e', 'E']).then_some(Literal::Float(float))
}
