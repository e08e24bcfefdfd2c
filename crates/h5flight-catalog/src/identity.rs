//! Digests over what is published: the identity of an array's bytes, and the names under which a file is served.
//!
//! Every field is hashed with its length before it: no two different inputs are the same bytes.

use crate::model::{FilePlace, Fingerprint, Publication};

/// Collects fields into a blake3.
struct Fields(blake3::Hasher);

impl Fields {
    /// Begins with what the digest is for, so that two kinds of digest never meet.
    fn of(purpose: &str) -> Self {
        let mut fields = Self(blake3::Hasher::new());
        fields.text(purpose);
        fields
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn place(&mut self, place: &FilePlace) {
        match place {
            FilePlace::Registered { root, path } => ["registered", root, path].into_iter().for_each(|t| self.text(t)),
            FilePlace::Managed { content } => ["managed", content].into_iter().for_each(|t| self.text(t)),
        }
    }
}

/// Identity of the bytes of the array at `hdf5_path` in this state of the file at `place`.
pub(crate) fn array(place: &FilePlace, fingerprint: &Fingerprint, hdf5_path: &str) -> [u8; 16] {
    let Fingerprint { device, inode, bytes, modified_ns } = *fingerprint;
    let mut fields = Fields::of("h5flight array identity 1");
    fields.place(place);
    [device, inode, bytes, modified_ns.cast_unsigned()].into_iter().for_each(|n| fields.number(n));
    fields.text(hdf5_path);
    let mut identity = [0; 16];
    identity.copy_from_slice(&fields.0.finalize().as_bytes()[..16]);
    identity
}

/// Digest over all names of a publication, in its order (the inspection's order is the same for the same file).
pub(crate) fn names(publication: &Publication) -> [u8; 32] {
    let mut fields = Fields::of("h5flight names 1");
    fields.number(publication.objects.len() as u64);
    for object in &publication.objects {
        fields.number(object.kind as u64);
        [&object.animal, &object.experiment, &object.name, &object.hdf5_path].into_iter().for_each(|t| fields.text(t));
    }
    for link in &publication.links {
        fields.number(link.link.kind as u64);
        [&link.animal, &link.experiment, &link.link.path, &link.link.target].into_iter().for_each(|t| fields.text(t));
    }
    fields.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_identity_counts() {
        let registered = |root: &str, path: &str| FilePlace::Registered { root: root.into(), path: path.into() };
        let print = Fingerprint { device: 1, inode: 2, bytes: 3, modified_ns: 4 };
        let all = [
            array(&registered("lab", "a/b.h5"), &print, "/x"),
            array(&registered("lab", "a/b.h5"), &print, "/y"),
            array(&registered("laba", "/b.h5"), &print, "/x"),
            array(&FilePlace::Managed { content: "lab".into() }, &print, "/x"),
            array(&registered("lab", "a/b.h5"), &Fingerprint { device: 2, inode: 1, ..print }, "/x"),
            array(&registered("lab", "a/b.h5"), &Fingerprint { bytes: 4, modified_ns: 3, ..print }, "/x"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "identity {at} is not its own");
        }
        assert_eq!(all[0], array(&registered("lab", "a/b.h5"), &print, "/x"));
    }
}
