//! Names within an experiment: their parts, the links that lead elsewhere, and which names look alike. Pure.

/// Substitutions of links until a name is given up: the bound that HDF5 itself has for soft links (H5L_NUM_LINKS).
pub(crate) const LINKS_MAX: usize = 16;
/// Names that a "did you mean" shows.
const NEAREST_MAX: usize = 5;
/// Names longer than this are not compared: a distance costs the product of both lengths.
const COMPARED_CHARS_MAX: usize = 256;

/// The name without empty and "." parts, which mean nothing to HDF5: "/a//b/./c/" is "a/b/c".
pub(crate) fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for part in name.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if !normal.is_empty() {
            normal.push('/');
        }
        normal.push_str(part);
    }
    normal
}

/// The group that a name is in: "a/b" of "a/b/c", "" of "a", `None` of the root itself.
pub(crate) fn parent(name: &str) -> Option<&str> {
    match name.rsplit_once('/') {
        Some((parent, _)) => Some(parent),
        None if name.is_empty() => None,
        None => Some(""),
    }
}

/// The last part of a name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

/// The name and all groups above it but the root: "a/b/c", "a/b", "a".
pub(crate) fn prefixes(name: &str) -> Vec<String> {
    let mut prefixes = Vec::new();
    let mut rest = Some(name).filter(|name| !name.is_empty());
    while let Some(prefix) = rest {
        prefixes.push(prefix.to_owned());
        rest = parent(prefix).filter(|parent| !parent.is_empty());
    }
    prefixes
}

/// `name` with its beginning `link` replaced by what the link leads to.
pub(crate) fn substitute(name: &str, link: &str, target: &str) -> String {
    let rest = name.strip_prefix(link).unwrap_or_default();
    normal(&format!("{target}/{rest}"))
}

/// The names among `candidates` that look like `wanted`, the most alike first, at most five.
///
/// A name is alike when few edits lead to it, ignoring case, or when its last parts are what was asked for ("data" is
/// like "acquisition/series/data").
pub fn nearest(wanted: &str, candidates: &[String]) -> Vec<String> {
    let wanted = folded(wanted);
    if wanted.len() > COMPARED_CHARS_MAX || wanted.is_empty() {
        return Vec::new();
    }
    let edits_max = (wanted.len() / 3).max(2);
    let mut alike: Vec<(usize, &String)> = candidates
        .iter()
        .filter_map(|candidate| {
            let folded = folded(candidate);
            if folded.is_empty() || folded.len() > COMPARED_CHARS_MAX {
                return None;
            }
            let is_tail = folded.len() > wanted.len()
                && folded.ends_with(&wanted)
                && folded[folded.len() - wanted.len() - 1] == '/';
            let distance = if is_tail { 1 } else { edit_distance(&wanted, &folded) };
            (distance <= edits_max).then_some((distance, candidate))
        })
        .collect();
    alike.sort_unstable();
    alike.dedup();
    alike.into_iter().take(NEAREST_MAX).map(|(_, name)| name.clone()).collect()
}

fn folded(name: &str) -> Vec<char> {
    name.chars().flat_map(char::to_lowercase).collect()
}

/// Levenshtein distance: insertions, deletions, replacements of one character. Written here because 15 lines do not
/// earn a dependency.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// "; did you mean ...?" or nothing.
pub fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => {
            format!("; did you mean {}?", names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_its_parts() {
        assert_eq!(normal("/a//b/./c/"), "a/b/c");
        assert_eq!(normal("/"), "");
        assert_eq!((parent("a/b/c"), parent("a"), parent("")), (Some("a/b"), Some(""), None));
        assert_eq!(prefixes("a/b/c"), ["a/b/c", "a/b", "a"]);
        assert!(prefixes("").is_empty());
        assert_eq!(substitute("x/y/z", "x/y", "t"), "t/z");
        assert_eq!(substitute("x", "x", "/t//u"), "t/u");
        assert_eq!(substitute("x/z", "x", ""), "z");
    }

    #[test]
    fn the_nearest_names_come_first_and_strangers_do_not_come() {
        let names = ["mouse-1", "mouse-12", "rat", "MOUSE1", "acq/series/data"].map(String::from);
        assert_eq!(nearest("mouse1", &names), ["MOUSE1", "mouse-1", "mouse-12"]);
        assert_eq!(nearest("series/data", &names), ["acq/series/data"]);
        assert!(nearest("elephant", &names).is_empty());
        assert!(nearest("", &names).is_empty());
        assert_eq!(did_you_mean(&nearest("rats", &names)), "; did you mean \"rat\"?");
    }

    proptest! {
        #[test]
        fn a_distance_is_symmetric_and_zero_only_for_equal_names(a in "[a-c]{0,8}", b in "[a-c]{0,8}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
            prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
            prop_assert!(edit_distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
