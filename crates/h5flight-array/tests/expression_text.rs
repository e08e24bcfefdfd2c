//! The text of an expression: what it means, what is refused and where, and that the canonical text means the same.

use std::cmp::Ordering;

use h5flight_array::Reason;
use h5flight_array::expression::{CONDITIONS_MAX, Comparison, DEPTH_MAX, Expression, Literal, TEXT_BYTES_MAX, Test};
use proptest::prelude::*;

/// Text and its canonical form.
const FILTERS: &[(&str, &str)] = &[
    ("a=1", "a = 1"),
    ("a<>1.50", "a != 1.5"),
    ("a >= -1e3", "a >= -1000.0"),
    ("a = .5", "a = 0.5"),
    ("a = 18446744073709551615", "a = 18446744073709551615"),
    ("a = 'it''s'", "a = 'it''s'"),
    ("\"a \"\"b\"\"\" = TRUE", "\"a \"\"b\"\"\" = true"),
    ("\"in\" in (1,2 , 3)", "\"in\" IN (1, 2, 3)"),
    ("a not in ('x')", "NOT a IN ('x')"),
    ("a between 1 and 2 and b = 3", "a BETWEEN 1 AND 2 AND b = 3"),
    ("a not between 1 and 2", "NOT a BETWEEN 1 AND 2"),
    ("a like 'x%' or a not like '_'", "a LIKE 'x%' OR NOT a LIKE '_'"),
    ("a contains 'x'", "a CONTAINS 'x'"),
    ("a is null or b is not null", "a IS NULL OR NOT b IS NULL"),
    ("a=1 or b=2 and c=3", "a = 1 OR b = 2 AND c = 3"),
    ("(a=1 or b=2) and c=3", "(a = 1 OR b = 2) AND c = 3"),
    ("((a=1) and (b=2 and c=3))", "a = 1 AND b = 2 AND c = 3"),
    ("not not a=1", "NOT NOT a = 1"),
    ("NOT (a=1 AND b=2)", "NOT (a = 1 AND b = 2)"),
    ("group/x.y_1 = 'ü'", "group/x.y_1 = 'ü'"),
    ("größe < 2", "größe < 2"),
];

#[test]
fn a_filter_has_a_canonical_text_that_means_the_same() {
    for (text, canonical) in FILTERS {
        let expression = Expression::filter(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expression.to_string(), *canonical, "{text}");
        assert_eq!(Expression::filter(canonical).unwrap(), expression, "{text}");
        let as_search = Expression::search(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(as_search, Some(expression), "{text} in a search");
    }
}

#[test]
fn a_search_of_words_stays_words_and_conditions_may_stand_between_them() {
    let cases = [
        ("", None),
        ("  ", None),
        ("spike times", Some("'spike' AND 'times'")),
        ("sub-001 2024-01-01", Some("'sub-001' AND '2024-01-01'")),
        ("it's in and or not is null", None),
        ("spikes in cortex", Some("'spikes' AND 'in' AND 'cortex'")),
        ("a like b and c", Some("'a' AND 'like' AND 'b' AND 'and' AND 'c'")),
        ("\"two words\" 'it''s'", Some("'two words' AND 'it''s'")),
        ("a, b", Some("'a' AND 'b'")),
        ("mouse rate > 3e4", Some("'mouse' AND rate > 30000.0")),
        ("rate>30000 and lab = 'x' mouse", Some("rate > 30000 AND lab = 'x' AND 'mouse'")),
        ("mouse OR rat", Some("'mouse' OR 'rat'")),
        ("NOT mouse", Some("NOT 'mouse'")),
        ("(mouse) rat", Some("'mouse' AND 'rat'")),
        ("attr.unit = 'volts'", Some("attr.unit = 'volts'")),
        ("\"attr.sampling rate\" = 5", Some("\"attr.sampling rate\" = 5")),
        ("sub-001.x = 5", Some("\"sub-001.x\" = 5")),
    ];
    for (text, canonical) in cases {
        let found = Expression::search(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        match text {
            // Begins like a condition: what looks like one is one.
            "it's in and or not is null" => assert!(found.is_some()),
            _ => assert_eq!(found.map(|found| found.to_string()).as_deref(), canonical, "{text}"),
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let cases = [
        ("", "expression, character 1: expected a name, found the end"),
        ("a", "expression, character 2: expected a comparison, IN, BETWEEN, LIKE, CONTAINS or IS NULL, found the end"),
        (
            "a = b",
            "expression, character 5: expected a number of 64 bits, a text in single quotes, true or false, found \"b\"",
        ),
        ("ü = 1 b", "expression, character 7: expected AND, OR or the end, found \"b\""),
        (
            "a == 1",
            "expression, character 4: expected a number of 64 bits, a text in single quotes, true or false, found \"= 1\"",
        ),
        ("a = 'x", "expression, character 5: what begins with ' does not end"),
        ("(a = 1", "expression, character 7: expected ')', found the end"),
        (
            "a in ()",
            "expression, character 7: expected a number of 64 bits, a text in single quotes, true or false, found \")\"",
        ),
        ("a ; 1", "expression, character 3: expected a name, a value or an operator, found \"; 1\""),
        ("a = 1e999", "character 5"),
        ("a = inf", "character 5"),
        ("a = 18446744073709551616", "character 5"),
        ("a = 1.2.3", "character 5"),
        ("a ! 1", "character 3: expected '!='"),
        ("a like 5", "character 8: expected a text in single quotes"),
        ("a between 1 or 2", "character 13: expected AND"),
        ("and = 1", "character 1: expected a name"),
    ];
    for (text, expected) in cases {
        let error = Expression::filter(text).expect_err(text);
        assert_eq!(error.reason, Reason::BadExpression, "{text}");
        assert!(error.message.contains(expected), "{text}: {}", error.message);
    }
}

#[test]
fn length_depth_and_number_of_conditions_are_bounded() {
    let deep = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    Expression::filter(&deep(DEPTH_MAX - 1)).unwrap();
    let many = |count: usize| vec!["a = 1"; count].join(" OR ");
    Expression::filter(&many(CONDITIONS_MAX)).unwrap();
    let long = format!("a = '{}'", "x".repeat(TEXT_BYTES_MAX));
    for (text, expected) in [
        (deep(DEPTH_MAX), "deeper than 64"),
        (deep(30_000), "deeper than 64"),
        ("NOT ".repeat(DEPTH_MAX) + "a = 1", "deeper than 64"),
        (many(CONDITIONS_MAX + 1), "at most 1000 conditions"),
        (long, "at most 65536 are read"),
    ] {
        let error = Expression::filter(&text).expect_err(expected);
        assert!(error.message.contains(expected), "{}", error.message);
    }
}

#[test]
fn numbers_are_compared_exactly() {
    let large = (1_i128 << 53) + 1;
    let cases = [
        (Literal::Float(9_007_199_254_740_992.0), large, Ordering::Greater),
        (Literal::Float(2.5), 2, Ordering::Less),
        (Literal::Float(-2.5), -2, Ordering::Greater),
        (Literal::Float(2.0), 2, Ordering::Equal),
        (Literal::Float(f64::MAX), i128::from(u64::MAX), Ordering::Less),
        (Literal::Float(f64::MIN), i128::from(i64::MIN), Ordering::Greater),
        (Literal::Integer(3), 4, Ordering::Greater),
    ];
    for (literal, value, order) in cases {
        assert_eq!(literal.compare_integer(value), Some(order), "{value} to {literal}");
    }
    assert_eq!(Literal::Integer(large).compare_float(9_007_199_254_740_992.0), Some(Ordering::Less));
    assert_eq!(Literal::Integer(1).compare_float(f64::NAN), None);
    assert_eq!(Literal::Integer(1).compare_float(f64::INFINITY), Some(Ordering::Greater));
    assert_eq!(Literal::Text("1".into()).compare_integer(1), None);
}

fn literal() -> impl Strategy<Value = Literal> {
    let finite = any::<f64>().prop_filter("finite", |number| number.is_finite());
    prop_oneof![
        any::<i64>().prop_map(|number| Literal::Integer(number.into())),
        any::<u64>().prop_map(|number| Literal::Integer(number.into())),
        finite.prop_map(Literal::Float),
        any::<String>().prop_map(Literal::Text),
        any::<bool>().prop_map(Literal::Bool),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    use Comparison::*;
    let comparison = proptest::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
    prop_oneof![
        (comparison, literal()).prop_map(|(comparison, literal)| Test::Compare(comparison, literal)),
        prop::collection::vec(literal(), 1..4).prop_map(Test::In),
        (literal(), literal()).prop_map(|(low, high)| Test::Between(low, high)),
        any::<String>().prop_map(Test::Like),
        any::<String>().prop_map(Test::Contains),
        Just(Test::IsNull),
    ]
}

/// A tree; whether it is in one level where it must be is the parser's business.
fn tree(with_words: bool) -> impl Strategy<Value = Expression> {
    let name = prop_oneof!["[a-z_][a-z0-9_./]{0,8}", any::<String>(), Just("and".to_owned())];
    let condition = (name, test()).prop_map(|(name, test)| Expression::Condition { name, test });
    let leaf = if with_words {
        prop_oneof![3 => condition, 1 => any::<String>().prop_map(Expression::Word)].boxed()
    } else {
        condition.boxed()
    };
    leaf.prop_recursive(6, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Any),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

/// As the parser makes it: members of the same kind are in one level.
fn flat(expression: Expression) -> Expression {
    let members = |members: Vec<Expression>| members.into_iter().map(flat).collect::<Vec<_>>();
    match expression {
        Expression::All(inner) => Expression::All(
            members(inner)
                .into_iter()
                .flat_map(|member| if let Expression::All(inner) = member { inner } else { vec![member] })
                .collect(),
        ),
        Expression::Any(inner) => Expression::Any(
            members(inner)
                .into_iter()
                .flat_map(|member| if let Expression::Any(inner) = member { inner } else { vec![member] })
                .collect(),
        ),
        Expression::Not(inner) => Expression::Not(Box::new(flat(*inner))),
        leaf => leaf,
    }
}

proptest! {
    #[test]
    fn a_filter_is_printed_and_read_again(tree in tree(false)) {
        let expression = flat(tree);
        prop_assert_eq!(&Expression::filter(&expression.to_string()).unwrap(), &expression);
        prop_assert_eq!(Expression::search(&expression.to_string()).unwrap(), Some(expression));
    }

    #[test]
    fn a_search_is_printed_and_read_again(tree in tree(true)) {
        let expression = flat(tree);
        prop_assert_eq!(Expression::search(&expression.to_string()).unwrap(), Some(expression));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".*", words in "[a-c '\"()=,<]*") {
        for text in [text, words] {
            let _ = (Expression::filter(&text), Expression::search(&text));
        }
    }
}
