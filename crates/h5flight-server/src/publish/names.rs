//! Which animal and experiment an object belongs to. Pure.
//!
//! From the one who publishes, else from the `/animals/{animal}/experiments/{experiment}/...` hierarchy in the file, else
//! from NWB, else from the file's name.

use h5flight_array::inspect::{Link, LinkKind, NwbFacts};
use h5flight_catalog::model::DatasetPath;

/// Longest name of an animal or an experiment, in bytes; longer ones from a file are cut.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest name of a dataset or a link's target, in bytes: what the catalogue's indexes hold. Objects with longer names are
/// left out, and counted.
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

/// Why something of the file has no name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its name, or that of its target, is longer than [`PATH_BYTES_MAX`].
    TooLong,
    /// A link from one experiment into another one, or to or from a level above them.
    Elsewhere,
    /// The members of a damaged group that could not be listed, whatever their number.
    Unlisted,
}

/// What of a file has no name here; shown for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    too_long: u64,
    elsewhere: u64,
    unlisted: u64,
}

impl LeftOut {
    /// Counts one more.
    pub fn add(&mut self, lost: Lost) {
        match lost {
            Lost::TooLong => self.too_long += 1,
            Lost::Elsewhere => self.elsewhere += 1,
            Lost::Unlisted => self.unlisted += 1,
        }
    }

    /// All of it.
    pub const fn count(self) -> u64 {
        self.too_long + self.elsewhere + self.unlisted
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { too_long, elsewhere, unlisted } = *self;
        let mut separator = "left out: ";
        if too_long > 0 {
            write!(f, "{separator}{too_long} objects or links with names of more than {PATH_BYTES_MAX} bytes")?;
            separator = ", ";
        }
        if elsewhere > 0 {
            write!(f, "{separator}{elsewhere} links from one experiment into another")?;
            separator = ", ";
        }
        if unlisted > 0 {
            write!(f, "{separator}members of {unlisted} damaged groups")?;
        }
        Ok(())
    }
}

impl FileNames {
    /// Where the object at this absolute HDF5 path belongs; `None` for the bare levels of the hierarchy.
    ///
    /// # Errors
    /// [`Lost::TooLong`].
    pub fn of_object(&self, path: &str) -> Result<Option<DatasetPath>, Lost> {
        let path = path.trim_start_matches('/');
        if path.len() > PATH_BYTES_MAX {
            return Err(Lost::TooLong);
        }
        let whole = |animal: &str, experiment: &str, dataset: &str| {
            Ok(Some(DatasetPath {
                animal: animal.to_owned(),
                experiment: experiment.to_owned(),
                dataset: dataset.to_owned(),
            }))
        };
        if self.hierarchy && (path == "animals" || path.starts_with("animals/")) {
            let mut parts = path.splitn(5, '/').skip(1);
            return match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(animal), Some("experiments"), Some(experiment), rest)
                    if animal.len() <= NAME_BYTES_MAX && experiment.len() <= NAME_BYTES_MAX =>
                {
                    whole(animal, experiment, rest.unwrap_or_default())
                }
                (_, None | Some("experiments"), None, None) => Ok(None),
                _ => whole(&self.animal, &self.experiment, path),
            };
        }
        whole(&self.animal, &self.experiment, path)
    }

    /// The link with paths inside its experiment, and where that is.
    ///
    /// # Errors
    /// [`Lost`], see there.
    pub fn of_link(&self, link: Link) -> Result<(DatasetPath, Link), Lost> {
        let at = self.of_object(&link.path)?.filter(|at| !at.dataset.is_empty()).ok_or(Lost::Elsewhere)?;
        let target = match link.kind {
            LinkKind::Hard | LinkKind::Soft => {
                let target = self.of_object(&link.target)?.ok_or(Lost::Elsewhere)?;
                if (&target.animal, &target.experiment) != (&at.animal, &at.experiment) {
                    return Err(Lost::Elsewhere);
                }
                target.dataset
            }
            LinkKind::External | LinkKind::User => link.target.chars().take(PATH_BYTES_MAX / 4).collect(),
        };
        let link = Link { path: at.dataset.clone(), kind: link.kind, target };
        Ok((at, link))
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
        let found = naming.of_file(file, nwb.as_ref()).of_object(path).unwrap();
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
    fn a_link_into_another_experiment_is_counted_and_an_external_one_kept_as_it_is() {
        let names = Naming::default().of_file("f.h5", None);
        let link = |kind, path: &str, target: &str| Link { path: path.into(), kind, target: target.into() };
        let inside = link(LinkKind::Soft, "/animals/a/experiments/e/x", "/animals/a/experiments/e/y");
        let (at, found) = names.of_link(inside).unwrap();
        assert_eq!((at.animal.as_str(), found.path.as_str(), found.target.as_str()), ("a", "x", "y"));
        let outside = link(LinkKind::Soft, "/animals/a/experiments/e/x", "/animals/b/experiments/e/y");
        assert_eq!(names.of_link(outside), Err(Lost::Elsewhere));
        let whole = link(LinkKind::Soft, "/animals/a/experiments/again", "/animals/a/experiments/e");
        assert_eq!(names.of_link(whole), Err(Lost::Elsewhere));
        let external = link(LinkKind::External, "/x", "other.h5:/y");
        assert_eq!(names.of_link(external).unwrap().1.target, "other.h5:/y");
    }

    #[test]
    fn what_has_too_long_a_name_is_counted_and_told() {
        let names = Naming::default().of_file("f.h5", None);
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX + 1));
        assert_eq!(names.of_object(&long), Err(Lost::TooLong));
        assert_eq!(names.of_object(&long[..=PATH_BYTES_MAX]).unwrap().unwrap().dataset.len(), PATH_BYTES_MAX);
        let mut left_out = LeftOut::default();
        assert_eq!((left_out.count(), left_out.to_string()), (0, String::new()));
        left_out.add(Lost::TooLong);
        left_out.add(Lost::Elsewhere);
        let told = "left out: 1 objects or links with names of more than 2048 bytes, 1 links from one experiment into \
                    another";
        assert_eq!((left_out.count(), left_out.to_string().as_str()), (2, told));
        // An animal whose name no index holds is no animal: the dataset keeps its path.
        let path = format!("/animals/{}/experiments/e/d", "a".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(names.of_object(&path).unwrap().unwrap().dataset, path[1..]);
    }
}
