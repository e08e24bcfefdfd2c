//! What LIKE and CONTAINS match: without regard to the case of A to Z, as both catalogues can, and by characters.

/// A pattern that is ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    One(char),
    AnyOne,
    AnyText,
}

impl Pattern {
    /// Of LIKE: `%` is any text, `_` any character, a backslash takes away the meaning of the next.
    pub fn like(text: &str) -> Self {
        let (mut steps, mut characters) = (Vec::new(), text.chars());
        while let Some(character) = characters.next() {
            steps.push(match character {
                '%' if steps.last() == Some(&Step::AnyText) => continue,
                '%' => Step::AnyText,
                '_' => Step::AnyOne,
                '\\' => Step::One(characters.next().unwrap_or('\\').to_ascii_lowercase()),
                other => Step::One(other.to_ascii_lowercase()),
            });
        }
        Self { steps }
    }

    /// Of CONTAINS.
    pub fn contains(text: &str) -> Self {
        let inner = text.chars().map(|character| Step::One(character.to_ascii_lowercase()));
        Self { steps: std::iter::once(Step::AnyText).chain(inner).chain([Step::AnyText]).collect() }
    }

    /// Whether a text is of this form. Time in proportion to the lengths of both multiplied.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().map(|character| character.to_ascii_lowercase()).collect();
        let (mut at, mut step) = (0, 0);
        // Behind the last `%`: the step, and where the text that it takes ends so far.
        let mut back: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.steps.get(step) {
                Some(Step::AnyText) => {
                    back = Some((step + 1, at));
                    step += 1;
                }
                Some(Step::One(wanted)) if *wanted == text[at] => (at, step) = (at + 1, step + 1),
                Some(Step::AnyOne) => (at, step) = (at + 1, step + 1),
                Some(Step::One(_)) | None => {
                    let Some((behind, taken)) = back else { return false };
                    back = Some((behind, taken + 1));
                    (at, step) = (taken + 1, behind);
                }
            }
        }
        self.steps[step..].iter().all(|step| *step == Step::AnyText)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn like_takes_any_text_for_percent_and_any_character_for_underscore() {
        let cases = [
            ("abc", "abc", true),
            ("ABC", "abc", true),
            ("abc", "abcd", false),
            ("a%", "a", true),
            ("%c%", "abcd", true),
            ("a%b%c", "aXbYbZc", true),
            ("a%b%c", "aXbYbZ", false),
            ("_", "ü", true),
            ("_", "", false),
            ("%", "", true),
            ("%%_", "x", true),
            (r"50\%", "50%", true),
            (r"50\%", "505", false),
            (r"a\_b", "a_b", true),
            (r"a\_b", "axb", false),
            ("a\\", "a\\", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::like(pattern).matches(text), expected, "{text:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn contains_takes_nothing_for_a_wildcard() {
        let cases =
            [("", "", true), ("%", "50%", true), ("%", "50", false), ("MOUSE", "mus (mouse)", true), ("b", "", false)];
        for (part, text, expected) in cases {
            assert_eq!(Pattern::contains(part).matches(text), expected, "{text:?} CONTAINS {part:?}");
        }
    }
}
