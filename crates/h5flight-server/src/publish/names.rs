//! Which animal and experiment an object belongs to. Pure.
//!
//! From the one who publishes, else from the `/animals/{animal}/experiments/{experiment}/...` hierarchy in the file, else
//! from NWB, else from the file's name.

use h5flight_array::inspect::{Link, LinkKind, NwbFacts};
use h5flight_catalog::model::DatasetPath;

/// Longest name of an animal or an experiment, in bytes; longer ones from a file are cut.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest name of a dataset or a link's target, in bytes: what the catalogue's indexes hold. Objects with longer names are
/// left out.
pub const PATH_BYTES_MAX: usize = 2048;

/// What the one who publishes says; empty is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Animal.
    pub animal: String,
    /// Experiment.
    pub experiment: String,
}

/// The names that hold for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNames {
    animal: String,
    experiment: String,
    /// Whether the hierarchy inside the file counts: only when nobody said anything.
    hierarchy: bool,
}

impl Naming {
    /// Decides for a file.
    pub fn of_file(&self, file_name: &str, nwb: Option<&NwbFacts>) -> FileNames {
        let stem = file_name.split_once('.').map_or(file_name, |(stem, _)| stem);
        let part = |prefix: &str| stem.split('_').find_map(|part| part.strip_prefix(prefix).map(str::to_owned));
        let fallback = |value: Option<String>| {
            named(value).unwrap_or_else(|| named(Some(stem.into())).unwrap_or("unnamed".into()))
        };
        let given = |text: &str| named(Some(text.to_owned()));
        let animal = given(&self.animal)
            .unwrap_or_else(|| fallback(named(nwb.and_then(|nwb| nwb.subject_id.clone())).or_else(|| part("sub-"))));
        let experiment = given(&self.experiment).unwrap_or_else(|| {
            let session = named(nwb.and_then(|nwb| nwb.session_id.clone()));
            let identifier = || named(nwb.and_then(|nwb| nwb.identifier.clone()));
            fallback(session.or_else(identifier).or_else(|| part("ses-")))
        });
        FileNames { animal, experiment, hierarchy: self.animal.is_empty() && self.experiment.is_empty() }
    }
}

impl FileNames {
    /// Where the object at this absolute HDF5 path belongs; `None` for the bare levels of the hierarchy and
    /// for names that are too long.
    pub fn of_object(&self, path: &str) -> Option<DatasetPath> {
        let path = path.trim_start_matches('/');
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        let whole = |animal: &str, experiment: &str, dataset: &str| DatasetPath {
            animal: animal.to_owned(),
            experiment: experiment.to_owned(),
            dataset: dataset.to_owned(),
        };
        if self.hierarchy && (path == "animals" || path.starts_with("animals/")) {
            let mut parts = path.splitn(5, '/').skip(1);
            return match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(animal), Some("experiments"), Some(experiment), rest) => {
                    Some(whole(animal, experiment, rest.unwrap_or_default()))
                }
                (_, None | Some("experiments"), None, None) => None,
                _ => Some(whole(&self.animal, &self.experiment, path)),
            };
        }
        Some(whole(&self.animal, &self.experiment, path))
    }

    /// The link with paths inside its experiment, and where that is; `None` when its target lies in another one.
    pub fn of_link(&self, link: Link) -> Option<(DatasetPath, Link)> {
        let at = self.of_object(&link.path).filter(|at| !at.dataset.is_empty())?;
        let target = match link.kind {
            LinkKind::Hard | LinkKind::Soft => {
                let target = self.of_object(&link.target)?;
                (target.animal == at.animal && target.experiment == at.experiment).then_some(target.dataset)?
            }
            LinkKind::External | LinkKind::User => link.target.chars().take(PATH_BYTES_MAX / 4).collect(),
        };
        let link = Link { path: at.dataset.clone(), kind: link.kind, target };
        Some((at, link))
    }
}

/// The trimmed name, cut to its longest; `None` when there is nothing left.
fn named(name: Option<String>) -> Option<String> {
    let name = name?;
    let name = name.trim();
    let end = (0..=name.len().min(NAME_BYTES_MAX)).rev().find(|at| name.is_char_boundary(*at))?;
    (end > 0).then(|| name[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nwb(subject: Option<&str>, session: Option<&str>, identifier: Option<&str>) -> NwbFacts {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (subject_id, session_id, identifier) = (owned(subject), owned(session), owned(identifier));
        NwbFacts { subject_id, session_id, identifier, ..NwbFacts::default() }
    }

    fn check(
        naming: (&str, &str),
        file: &str,
        nwb: Option<NwbFacts>,
        path: &str,
        expected: Option<(&str, &str, &str)>,
    ) {
        let naming = Naming { animal: naming.0.into(), experiment: naming.1.into() };
        let found = naming.of_file(file, nwb.as_ref()).of_object(path);
        let found = found.as_ref().map(|at| (at.animal.as_str(), at.experiment.as_str(), at.dataset.as_str()));
        assert_eq!(found, expected, "{naming:?} {file} {path}");
    }

    #[test]
    fn names_come_from_the_caller_then_the_hierarchy_then_nwb_then_the_file_name() {
        let full = || Some(nwb(Some("m7"), Some("day1"), Some("uuid")));
        let deep = "/animals/a1/experiments/e1/imaging/data";
        check(("x", "y"), "f.h5", full(), deep, Some(("x", "y", "animals/a1/experiments/e1/imaging/data")));
        check(("", ""), "f.h5", full(), deep, Some(("a1", "e1", "imaging/data")));
        check(("", ""), "f.h5", full(), "/animals/a1/experiments", None);
        check(("", ""), "f.h5", full(), "/animals/a1/weight", Some(("m7", "day1", "animals/a1/weight")));
        check(("", ""), "f.h5", full(), "/units/id", Some(("m7", "day1", "units/id")));
        check(("x", ""), "f.h5", full(), "/d", Some(("x", "day1", "d")));
        check(("", ""), "f.h5", Some(nwb(None, None, Some("uuid"))), "/d", Some(("f", "uuid", "d")));
        check(("", ""), "sub-9_ses-3_ecephys.nwb", Some(nwb(None, None, None)), "/d", Some(("9", "3", "d")));
        check(("", ""), "movie.v2.h5", None, "/d", Some(("movie", "movie", "d")));
        check(("", ""), ".h5", None, "/", Some(("unnamed", "unnamed", "")));
    }

    #[test]
    fn a_link_into_another_experiment_is_dropped_and_an_external_one_kept_as_it_is() {
        let names = Naming::default().of_file("f.h5", None);
        let link = |kind, path: &str, target: &str| Link { path: path.into(), kind, target: target.into() };
        let inside = link(LinkKind::Soft, "/animals/a/experiments/e/x", "/animals/a/experiments/e/y");
        let (at, found) = names.of_link(inside).unwrap();
        assert_eq!((at.animal.as_str(), found.path.as_str(), found.target.as_str()), ("a", "x", "y"));
        let outside = link(LinkKind::Soft, "/animals/a/experiments/e/x", "/animals/b/experiments/e/y");
        assert_eq!(names.of_link(outside), None);
        let external = link(LinkKind::External, "/x", "other.h5:/y");
        assert_eq!(names.of_link(external).unwrap().1.target, "other.h5:/y");
    }
}
