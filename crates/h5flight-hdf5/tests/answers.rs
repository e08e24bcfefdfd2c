//! What the worker says about small files made for the occasion, in this process.

#[path = "answers/files.rs"]
mod files;

use files::{Scratch, Seen};
use h5flight_array::index::{ChunkIndex, ChunkRun};
use h5flight_array::inspect::{Hyperslab, InspectLimits, LinkKind, Message, ObjectKind};
use h5flight_array::meta::{
    ByteOrder, ElementType, Member, SlabAxis, Space, Storage, StringPadding, Text, VirtualMapping,
};
use h5flight_array::{Reason, codec};
use hdf5::types::{FixedAscii, VarLenArray, VarLenUnicode};
use hdf5_sys::h5t;
use serde_json::json;

#[test]
fn objects_come_in_depth_first_order_and_other_names_as_links() {
    let scratch = Scratch::new(|file| {
        file.create_group("b")?.create_group("inner")?;
        file.create_group("a")?.new_dataset_builder().with_data(&[1i8]).create("x")?;
        file.link_hard("/a/x", "/b/alias")?;
        file.link_hard("/", "/b/inner/root")?;
        file.link_soft("../a/./x", "/b/soft")?;
        file.link_soft("/nowhere", "dangling")?;
        file.link_external("other file.h5", "/data", "outside")?;
        file.create_group("100% \u{1}")?;
        file.commit_datatype("type", &hdf5::Datatype::from_type::<f64>()?)
    });
    let seen = scratch.inspect();
    let objects: Vec<_> = seen.objects.iter().map(|seen| (seen.object.path.as_str(), seen.object.kind)).collect();
    use ObjectKind::{Dataset, Group, NamedType};
    let expected = [
        ("/", Group),
        ("/100%25 %01", Group),
        ("/a", Group),
        ("/a/x", Dataset),
        ("/b", Group),
        ("/b/inner", Group),
        ("/type", NamedType),
    ];
    assert_eq!(objects, expected);
    let links: Vec<_> = seen.links.iter().map(|link| (link.path.as_str(), link.kind, link.target.as_str())).collect();
    let expected = [
        ("/dangling", LinkKind::Soft, "/nowhere"),
        ("/outside", LinkKind::External, "other file.h5:/data"),
        ("/b/soft", LinkKind::Soft, "/b/../a/x"),
        ("/b/alias", LinkKind::Hard, "/a/x"),
        ("/b/inner/root", LinkKind::Hard, "/"),
    ];
    assert_eq!(links, expected);
    assert_eq!(seen.last, Message::Done);
}

#[test]
fn offsets_and_chunk_addresses_count_from_the_start_of_the_file() {
    for user_block_bytes in [0, 512, 2048] {
        let scratch = Scratch::with_user_block(user_block_bytes, |file| {
            let numbers: Vec<u16> = (1000..1012).collect();
            file.new_dataset_builder().with_data(&numbers).create("contiguous")?;
            let grid = file.new_dataset::<u16>().shape((3, 4)).chunk((2, 3)).create("chunked")?;
            grid.write_raw(&(0..12).collect::<Vec<u16>>())?;
            file.new_dataset::<u16>().shape(5).create("empty").map(drop)
        });
        let (seen, bytes) = (scratch.inspect(), scratch.bytes());
        assert_eq!(seen.facts.user_block_bytes, user_block_bytes);
        let expected: Vec<u8> = (1000u16..1012).flat_map(u16::to_le_bytes).collect();
        let Storage::Contiguous { offset: Some(offset) } = seen.array("/contiguous").storage else {
            panic!("contiguous")
        };
        assert_eq!(bytes[offset as usize..][..24], expected);
        assert_eq!(seen.array("/empty").storage, Storage::Contiguous { offset: None });

        assert_eq!(seen.array("/chunked").storage, Storage::Chunked { chunk_shape: vec![2, 3] });
        let index = ChunkIndex::from_runs(&seen.object("/chunked").runs).unwrap();
        assert_eq!(index.pointers().len(), 4);
        // Chunk 3 starts at [2, 3]: its first element is 2 * 4 + 3.
        let pointer = index.find(3).unwrap();
        assert_eq!((pointer.bytes, pointer.mask), (12, 0));
        assert_eq!(bytes[pointer.offset as usize..][..2], 11u16.to_le_bytes());
    }
}

#[test]
fn filters_fill_value_and_extents_are_reported() {
    let scratch = Scratch::new(|file| {
        let builder = file.new_dataset::<i32>().shape((0.., 4)).chunk((2, 4)).shuffle().deflate(6).fletcher32();
        builder.fill_value(-7i32).create("x").map(drop)
    });
    let seen = scratch.inspect();
    let array = seen.array("/x");
    assert_eq!(array.space, Space::Simple { shape: vec![0, 4] });
    assert_eq!(array.max_shape, [None, Some(4)]);
    let filters: Vec<_> = array.filters.iter().map(|filter| (filter.id, filter.params.clone())).collect();
    assert_eq!(filters, [(2, vec![4]), (1, vec![6]), (3, vec![])]);
    assert_eq!(array.fill.as_deref(), Some((-7i32).to_le_bytes().as_slice()));
    assert!(seen.object("/x").runs.is_empty());
}

#[test]
fn strings_sequences_and_references_are_packed_and_delivered_inline() {
    let scratch = Scratch::new(|file| {
        let words: Vec<VarLenUnicode> = ["", "naïve", "x"].iter().map(|word| word.parse().expect("no NUL")).collect();
        file.new_dataset_builder().with_data(&words).create("words")?;
        let lists = [VarLenArray::from_slice(&[1u16, 2]), VarLenArray::from_slice(&[])];
        file.new_dataset_builder().with_data(&lists).create("lists")?;
        files::object_references(file, "refs", &["/words", "/lists", ""]);
        Ok(())
    });
    let seen = scratch.inspect();
    let word = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let words = [word(""), word("naïve"), word("x")].concat();
    assert_eq!(seen.array("/words").element, ElementType::VarString { text: Text::Utf8 });
    assert_eq!(seen.object("/words").inline.as_deref(), Some(words.as_slice()));
    let lists = [2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0];
    assert_eq!(seen.object("/lists").inline.as_deref(), Some(lists.as_slice()));
    let refs = [word("/words"), word("/lists"), u32::MAX.to_le_bytes().to_vec()].concat();
    assert_eq!(seen.array("/refs").element, ElementType::Reference { region: false });
    assert_eq!(seen.object("/refs").inline.as_deref(), Some(refs.as_slice()));

    let whole = |path: &str, size| scratch.read(&seen, path, &[slab(&[0], &[size])]);
    assert_eq!(whole("/words", 3).unwrap(), [words]);
    assert_eq!(whole("/lists", 2).unwrap(), [lists]);
    assert_eq!(whole("/refs", 3).unwrap(), [refs]);
    let parts = scratch.read(&seen, "/words", &[slab(&[1], &[1]), slab(&[2], &[1]), slab(&[0], &[0])]).unwrap();
    assert_eq!(parts, [word("naïve"), word("x"), Vec::new()]);
}

#[test]
fn strings_that_are_not_utf8_are_marked_and_others_are_not() {
    let scratch = Scratch::new(|file| {
        let latin: Vec<FixedAscii<4>> = vec![fixed_ascii(b"ab"), fixed_ascii(b"\xe9t\xe9")];
        file.new_dataset_builder().with_data(&latin).chunk(1).deflate(1).create("latin")?;
        // Cut at the first NUL, what follows is not part of the value.
        let bytes = b"ok\0\xffda\0\0";
        files::dataset(file, "cut", files::string_of(4, h5t::H5T_STR_NULLTERM), bytes);
        files::dataset(file, "kept", files::string_of(4, h5t::H5T_STR_NULLPAD), bytes);
        Ok(())
    });
    let seen = scratch.inspect();
    let string = |padding, text| ElementType::FixedString { bytes: 4, padding, text };
    assert_eq!(seen.array("/latin").element, string(StringPadding::NullPadded, Text::Binary));
    assert_eq!(seen.array("/cut").element, string(StringPadding::NullTerminated, Text::Utf8));
    assert_eq!(seen.array("/kept").element, string(StringPadding::NullPadded, Text::Binary));
    assert!(seen.object("/cut").inline.is_none(), "fixed strings are read without a worker");
}

#[test]
fn standard_numbers_keep_their_bytes_and_odd_ones_are_converted() {
    let scratch = Scratch::new(|file| {
        files::dataset(file, "big", *h5t::H5T_STD_I32BE, &[0, 0, 1, 2]);
        files::dataset(file, "half", files::half(), &[0, 0x3c]);
        files::dataset(file, "bits", *h5t::H5T_STD_B16BE, &[1, 2]);
        files::dataset(file, "three", files::integer_of(3, 24, h5t::H5T_ORDER_BE), &[0xff, 0xff, 0xfe]);
        files::dataset(file, "twelve", files::integer_of(2, 12, h5t::H5T_ORDER_LE), &[0xfe, 0x0f]);
        files::dataset(file, "twelve_big", files::integer_of(2, 12, h5t::H5T_ORDER_BE), &[0x0f, 0xfe]);
        files::dataset(file, "sixteen", files::integer_of(4, 16, h5t::H5T_ORDER_LE), &[0xfe, 0xff, 0, 0]);
        files::dataset(file, "brain", files::float_of(2, (8, 7, 127)), &[0xc0, 0xbf]);
        files::dataset(file, "tiny", files::float_of(1, (4, 3, 7)), &[0x3c]);
        files::long_double(file, "long", 1.5);
        Ok(())
    });
    let seen = scratch.inspect();
    let integer = |bytes, order| ElementType::Integer { bytes, signed: true, order };
    let float = |bytes| ElementType::Float { bytes, order: ByteOrder::Little };
    let cases = [
        ("/big", integer(4, ByteOrder::Big), "", vec![0, 0, 1, 2]),
        ("/half", float(2), "", vec![0, 0x3c]),
        ("/bits", ElementType::Bitfield { bytes: 2, order: ByteOrder::Big }, "", vec![1, 2]),
        ("/three", integer(4, ByteOrder::Big), "int24", (-2i32).to_be_bytes().to_vec()),
        ("/twelve", integer(2, ByteOrder::Little), "int12", (-2i16).to_le_bytes().to_vec()),
        ("/twelve_big", integer(2, ByteOrder::Big), "int12", (-2i16).to_be_bytes().to_vec()),
        // As large as in the file, whatever its precision; floats by what they can hold.
        ("/sixteen", integer(4, ByteOrder::Little), "int16", (-2i32).to_le_bytes().to_vec()),
        ("/brain", float(4), "bfloat16", (-1.5f32).to_le_bytes().to_vec()),
        ("/tiny", float(2), "float of 1 bytes (e4m3)", vec![0, 0x3e]),
        ("/long", float(8), "float128", 1.5f64.to_le_bytes().to_vec()),
    ];
    for (path, element, note, block) in cases {
        let array = seen.array(path);
        assert_eq!((&array.element, array.type_note.as_str()), (&element, note), "{path}");
        assert_eq!(array.converted, !note.is_empty(), "{path}");
        assert_eq!(seen.object(path).inline.is_some(), array.converted, "{path}");
        assert_eq!(scratch.read(&seen, path, &[slab(&[0], &[1])]).unwrap(), [block], "{path}");
    }
}

#[test]
fn compounds_keep_their_offsets_and_bool_and_complex_are_known() {
    #[derive(hdf5::H5Type, Clone, Copy)]
    #[repr(C)]
    struct Event {
        at: f64,
        channel: u8,
        // Seven bytes of padding.
        pair: [i16; 2],
        valid: bool,
    }
    let scratch = Scratch::new(|file| {
        let event = Event { at: 0.5, channel: 3, pair: [-1, 2], valid: true };
        file.new_dataset_builder().with_data(&[event]).create("events")?;
        files::complex(file, "complex", [1.0, -2.0]);
        files::native_complex(file, "native", [3.0, 4.0]);
        Ok(())
    });
    let seen = scratch.inspect();
    let ElementType::Compound { bytes, members } = &seen.array("/events").element else { panic!("compound") };
    assert_eq!(*bytes as usize, size_of::<Event>());
    let member = |name: &str, offset, element| Member { name: name.into(), offset, element };
    let order = ByteOrder::Little;
    let item = Box::new(ElementType::Integer { bytes: 2, signed: true, order });
    let expected = [
        member("at", 0, ElementType::Float { bytes: 8, order }),
        member("channel", 8, ElementType::Integer { bytes: 1, signed: false, order }),
        member("pair", 10, ElementType::Array { dims: vec![2], item }),
        member("valid", 14, ElementType::Bool),
    ];
    assert_eq!(*members, expected);
    let part = Box::new(ElementType::Float { bytes: 8, order });
    for (path, values) in [("/complex", [1.0f64, -2.0]), ("/native", [3.0, 4.0])] {
        assert_eq!(seen.array(path).element, ElementType::Complex { part: part.clone() });
        let block: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(scratch.read(&seen, path, &[slab(&[0], &[1])]).unwrap(), [block]);
    }
}

#[test]
fn attributes_of_every_kind_become_json() {
    let scratch = Scratch::new(|file| {
        file.new_attr_builder().with_data(&[1.5f32, f32::NAN, f32::INFINITY]).create("floats")?;
        file.new_attr::<u64>().create("big")?.write_scalar(&u64::MAX)?;
        file.new_attr::<bool>().create("flag")?.write_scalar(&true)?;
        file.new_attr::<VarLenUnicode>()
            .create("text")?
            .write_scalar(&"süß".parse::<VarLenUnicode>().expect("no NUL"))?;
        file.new_attr::<FixedAscii<5>>().create("bytes")?.write_scalar(&fixed_ascii::<5>(b"\xff\xfe"))?;
        file.new_attr::<u16>().shape((2, 2)).create("grid")?.write_raw(&[0u16, 1, 2, 3])?;
        file.new_attr_builder().with_data(&vec![0u8; 1_100_000]).create("large")?;
        Ok(())
    });
    let seen = scratch.inspect();
    let expected = json!({
        "floats": [1.5, "NaN", "Infinity"],
        "big": u64::MAX,
        "flag": true,
        "text": "süß",
        "bytes": { "b64": "//4=" },
        "grid": [[0, 1], [2, 3]],
        "large": { "omitted": 1_100_000 },
    });
    assert_eq!(json!(seen.object("/").object.attributes), expected);
    // A single text needs no note: JSON says it all.
    let types = json!({
        "floats": ["<f4", [3]],
        "big": "<u8",
        "flag": "|b1",
        "bytes": "|S5",
        "grid": ["<u2", [2, 2]],
        "large": ["|u1", [1_100_000]],
    });
    assert_eq!(json!(seen.object("/").object.attribute_types), types);
}

#[test]
fn a_null_dataspace_a_scalar_and_an_empty_array_are_told_apart() {
    let scratch = Scratch::new(|file| {
        files::null_dataset(file, "null");
        file.new_dataset::<VarLenUnicode>().shape(0).create("none")?;
        file.new_dataset::<f64>().create("scalar")?.write_scalar(&2.5)
    });
    let seen = scratch.inspect();
    assert_eq!(seen.array("/null").space, Space::Null);
    assert_eq!(seen.array("/none").space, Space::Simple { shape: vec![0] });
    assert_eq!(seen.object("/none").inline.as_deref(), Some([].as_slice()));
    assert_eq!(seen.array("/scalar").space, Space::Simple { shape: vec![] });
    assert_eq!(scratch.read(&seen, "/scalar", &[slab(&[], &[])]).unwrap(), [2.5f64.to_le_bytes()]);
    assert_eq!(scratch.read(&seen, "/null", &[]).unwrap_err().0, Reason::NullDataspace);
}

#[test]
fn compact_data_is_inline_and_without_inline_no_value_is_read() {
    let scratch = Scratch::new(|file| {
        file.new_dataset_builder()
            .with_data(&[1u32, 2])
            .layout(hdf5::plist::dataset_create::Layout::Compact)
            .create("x")?;
        file.new_attr::<VarLenUnicode>()
            .create("nwb_version")?
            .write_scalar(&"2.8.0".parse::<VarLenUnicode>().unwrap())?;
        file.new_dataset_builder().with_data(&[fixed_ascii::<2>(b"\xff\xfe")]).create("texts").map(drop)
    });
    let (seen, bare) = (scratch.inspect(), scratch.inspect_without_inline());
    let text = |seen: &Seen| match seen.array("/texts").element {
        ElementType::FixedString { text, .. } => text,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(seen.object("/x").inline.as_deref(), Some([1, 0, 0, 0, 2, 0, 0, 0].as_slice()));
    assert_eq!((text(&seen), seen.facts.nwb.is_some()), (Text::Binary, true));
    assert_eq!((bare.array("/x").storage.clone(), bare.object("/x").inline.is_none()), (Storage::Compact, true));
    assert_eq!((text(&bare), bare.facts.nwb.is_some()), (Text::Utf8, false));
    assert_eq!(scratch.read(&bare, "/x", &[slab(&[0], &[2])]).unwrap(), [[1, 0, 0, 0, 2, 0, 0, 0]]);
}

#[test]
fn data_in_other_files_is_named_and_never_read() {
    let scratch = Scratch::new(|file| {
        files::external(file, "external", "/etc/hostname");
        files::virtual_dataset(file, "virtual");
        Ok(())
    });
    let seen = scratch.inspect();
    assert_eq!(seen.array("/external").storage, Storage::External);
    let mapping = VirtualMapping {
        file: Some("other.h5".into()),
        path: "/x".into(),
        slab: vec![SlabAxis::run(0, 4)],
        source_slab: None,
    };
    assert_eq!(seen.array("/virtual").storage, Storage::Virtual { mappings: vec![mapping] });
    let read = |path| scratch.read(&seen, path, &[slab(&[0], &[4])]).unwrap_err().0;
    assert_eq!(read("/external"), Reason::ExternalStorageRefused);
    assert_eq!(read("/virtual"), Reason::VirtualSourceRefused);
}

#[test]
fn a_virtual_dataset_tells_its_mappings_and_is_read_if_it_needs_only_its_own_file() {
    let scratch = Scratch::new(|file| {
        file.create_group("group")?;
        file.new_dataset_builder().with_data(&[1u8, 2, 3, 4, 5, 6]).create("group/x")?;
        file.link_soft("/group", "soft")?;
        let other = |source: &'static str, slab| files::Mapping { file: ".", source, slab };
        files::virtual_of(file, "fine", 9, &[other("soft/x", (1, 3, 2, 2)), other("group//x", (0, 6, 1, 6))]);
        files::virtual_of(file, "hard", 9, &[other("/group/x", (1, 3, 2, 2))]);
        files::virtual_of(file, "gone", 9, &[other("nowhere", (0, 9, 1, 6))]);
        files::virtual_of(file, "circle", 9, &[other("circle", (0, 9, 1, 6))]);
        Ok(())
    });
    let seen = scratch.inspect();
    let Storage::Virtual { mappings } = &seen.array("/fine").storage else { panic!("it is virtual") };
    let told: Vec<_> = mappings.iter().map(|mapping| (&mapping.file, mapping.path.as_str(), mapping.slab[0])).collect();
    let slab_axis = |start, stride, count, block| SlabAxis { start, stride, count: Some(count), block };
    let slabs = [slab_axis(1, 3, 2, 2), slab_axis(0, 6, 1, 6)];
    assert_eq!(told, [(&None, "/group/x", slabs[0]), (&None, "/group/x", slabs[1])]);
    let read = |path| scratch.read(&seen, path, &[slab(&[0], &[9])]);
    assert_eq!(read("/hard").unwrap()[0][..], [0, 1, 2, 0, 3, 4, 0, 0, 0]);
    let refused = |path| read(path).unwrap_err().0;
    assert_eq!(refused("/fine"), Reason::VirtualSourceRefused, "a soft link might lead out of the file");
    assert_eq!(refused("/gone"), Reason::VirtualSourceRefused);
    assert_eq!(refused("/circle"), Reason::VirtualCycle);
}

#[test]
fn reading_checks_that_the_dataset_is_the_one_that_was_inspected() {
    let scratch = Scratch::new(|file| {
        file.new_dataset_builder().with_data(&[1i32, 2, 3]).create("x")?;
        file.create_group("group")?;
        file.link_soft("/x", "soft")
    });
    let seen = scratch.inspect();
    let block = [slab(&[0], &[3])];
    let array = seen.array("/x");
    let mut longer = array.clone();
    longer.space = Space::Simple { shape: vec![4] };
    let mut wider = array.clone();
    wider.element = ElementType::Integer { bytes: 8, signed: true, order: ByteOrder::Little };
    let cases = [
        ("/x", &longer, Reason::FileChanged),
        ("/x", &wider, Reason::FileChanged),
        ("/y", array, Reason::FileChanged),
        ("/soft", array, Reason::FileChanged),
        ("/group", array, Reason::FileChanged),
        ("/x/y", array, Reason::FileChanged),
        ("/%", array, Reason::BadRequest),
        ("/group%2F..%2Fx", array, Reason::FileChanged),
    ];
    for (path, meta, reason) in cases {
        assert_eq!(scratch.read_as(path, meta, &block).unwrap_err().0, reason, "{path}");
    }
    for outside in [slab(&[1], &[3]), slab(&[u64::MAX], &[2]), slab(&[], &[]), slab(&[0, 0], &[1, 1])] {
        assert_eq!(scratch.read(&seen, "/x", &[outside]).unwrap_err().0, Reason::OutOfBounds);
    }
}

#[test]
fn what_is_no_file_of_ours_is_told_apart() {
    let whole = Scratch::new(|file| file.new_dataset_builder().with_data(&[1i32; 500]).create("x").map(drop)).bytes();
    let marked = Scratch::latest(|_| Ok(())).bytes_with(|bytes| bytes[11] |= 1);
    let swmr = Scratch::latest(|_| Ok(())).bytes_with(|bytes| bytes[11] |= 4);
    let garbage = [whole[..8].to_vec(), vec![0xff; 2000]].concat();
    let cases: [(&str, Vec<u8>, Reason); 8] = [
        ("empty", Vec::new(), Reason::NotHdf5),
        ("text", b"time,value\n".repeat(200), Reason::NotHdf5),
        ("signature in the wrong place", [vec![0; 100], whole.clone()].concat(), Reason::NotHdf5),
        ("end missing", whole[..whole.len() - 100].to_vec(), Reason::Truncated),
        ("signature only", whole[..20].to_vec(), Reason::Truncated),
        ("open for writing", marked, Reason::OpenForWriting),
        ("open for SWMR writing", swmr, Reason::OpenForWriting),
        ("signature and garbage", garbage, Reason::MalformedFile),
    ];
    for (what, bytes, reason) in cases {
        let Message::Failed { reason: got, message } = Scratch::from_bytes(&bytes).inspect().last else {
            panic!("{what} was inspected")
        };
        assert_eq!(got, reason, "{what}: {message}");
    }
}

#[test]
fn a_file_that_a_writer_has_locked_is_not_inspected() {
    let scratch = Scratch::new(|_| Ok(()));
    let writer = std::fs::File::open(scratch.path()).unwrap();
    rustix::fs::flock(&writer, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let Message::Failed { reason, .. } = scratch.inspect().last else { panic!("inspected") };
    assert_eq!(reason, Reason::OpenForWriting);
    drop(writer);
    assert_eq!(scratch.inspect().last, Message::Done);
}

#[test]
fn a_file_that_was_deleted_after_it_was_opened_is_not_called_malformed() {
    let scratch = Scratch::new(|_| Ok(()));
    let file = std::fs::File::open(scratch.path()).unwrap();
    std::fs::remove_file(scratch.path()).unwrap();
    let Message::Failed { reason, .. } = scratch.inspect_opened(&file).last else { panic!("inspected") };
    assert_eq!(reason, Reason::FileChanged);
}

#[test]
fn a_file_beyond_a_limit_is_too_complex_and_says_which() {
    let scratch = Scratch::new(|file| {
        file.create_group("a")?.create_group("b")?.create_group("c")?;
        file.new_attr_builder().with_data(&[1i8]).create("one")?;
        file.new_attr_builder().with_data(&[1i8]).create("two")?;
        file.new_dataset_builder().with_data(&[0u8; 10]).chunk(1).create("chunks").map(drop)
    });
    let limits = InspectLimits::default();
    let cases = [
        (InspectLimits { objects_max: 3, ..limits.clone() }, "objects"),
        (InspectLimits { links_max: 3, ..limits.clone() }, "links"),
        (InspectLimits { depth_max: 1, ..limits.clone() }, "levels"),
        (InspectLimits { name_bytes_max: 5, ..limits.clone() }, "name"),
        (InspectLimits { attributes_max: 1, ..limits.clone() }, "attributes"),
        (InspectLimits { chunks_max: 9, ..limits.clone() }, "chunks"),
    ];
    for (limits, what) in cases {
        let Message::Failed { reason, message } = scratch.inspect_within(limits).last else { panic!("{what}") };
        assert_eq!(reason, Reason::FileTooComplex, "{message}");
        assert!(message.contains(what), "{message}");
    }
    let exact = InspectLimits {
        objects_max: 5,
        links_max: 4,
        depth_max: 3,
        name_bytes_max: 6,
        attributes_max: 2,
        chunks_max: 10,
        ..limits
    };
    assert_eq!(scratch.inspect_within(exact).last, Message::Done);
}

#[test]
fn damaged_data_is_told_apart() {
    let scratch = Scratch::new(|file| {
        let data: Vec<u32> = (0..1000).collect();
        file.new_dataset_builder().with_data(&data).chunk(1000).fletcher32().create("summed")?;
        file.new_dataset_builder().with_data(&data).chunk(1000).deflate(4).create("deflated").map(drop)
    });
    let seen = scratch.inspect();
    let first = |path: &str| ChunkIndex::from_runs(&seen.object(path).runs).unwrap().pointers()[0].offset as usize;
    let (summed, deflated) = (first("/summed"), first("/deflated"));
    let damaged = Scratch::from_bytes(&scratch.bytes_with(|bytes| {
        bytes[summed + 40] ^= 1;
        bytes[deflated] ^= 0xff;
    }));
    let read = |path| damaged.read(&seen, path, &[slab(&[0], &[10])]).unwrap_err().0;
    assert_eq!(read("/summed"), Reason::Checksum);
    assert_eq!(read("/deflated"), Reason::MalformedFile);
}

#[test]
fn a_chunk_or_array_outside_the_file_is_a_problem_of_that_dataset_alone() {
    let scratch = Scratch::new(|file| {
        file.new_dataset_builder().with_data(&[7u8; 100]).create("contiguous")?;
        file.new_dataset_builder().with_data(&[7u8; 100]).chunk(100).create("chunked").map(drop)
    });
    let seen = scratch.inspect();
    assert!(seen.objects.iter().all(|seen| seen.object.problem.is_none()));
    // As the server saw it, the file is shorter than what libhdf5 finds.
    let seen = scratch.inspect_as_of(300);
    assert_eq!(seen.last, Message::Done);
    let problem = |path: &str| seen.object(path).object.problem.as_ref().map(|problem| problem.0);
    assert_eq!(problem("/contiguous"), Some(Reason::Truncated));
    assert_eq!(problem("/chunked"), Some(Reason::ChunkAddress));
    assert!(seen.object("/chunked").runs.is_empty());
}

#[test]
fn a_filter_without_a_decoder_is_named_when_the_data_is_read() {
    let scratch = Scratch::new(|file| {
        files::with_raw_chunk(file, "packed", 305, &[], &[1, 2, 3]);
        Ok(())
    });
    let seen = scratch.inspect();
    assert_eq!(seen.array("/packed").filters[0].id, 305);
    let (reason, message) = scratch.read(&seen, "/packed", &[slab(&[0], &[4])]).unwrap_err();
    assert_eq!(reason, Reason::UnsupportedFilter);
    assert!(message.contains("305") && message.contains("/packed"), "{message}");
}

#[test]
fn lzf_chunks_are_decoded_by_the_servers_own_decoder() {
    let scratch = Scratch::new(|file| {
        // One literal, then a copy of nine bytes from one byte back.
        files::with_raw_chunk(file, "x", codec::LZF, &[4, 0, 16], &[3, 5, 0, 0, 0, 0xe0, 3, 3]);
        Ok(())
    });
    let seen = scratch.inspect();
    let block = scratch.read(&seen, "/x", &[slab(&[0], &[4])]).unwrap();
    assert_eq!(block, [[5, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0]]);
}

#[test]
fn a_chunk_that_was_left_unfiltered_at_the_edge_says_so_in_its_mask() {
    let scratch = Scratch::new(|file| {
        files::unfiltered_edge(file, "x");
        Ok(())
    });
    let seen = scratch.inspect();
    let runs: &[ChunkRun] = &seen.object("/x").runs;
    let index = ChunkIndex::from_runs(runs).unwrap();
    assert_eq!(index.find(0).unwrap().mask, 0);
    assert_eq!(index.find(1).unwrap().mask, u32::MAX);
    assert_eq!(index.find(1).unwrap().bytes, 400);
}

#[test]
fn an_nwb_file_names_its_recording() {
    let scratch = Scratch::new(|file| {
        let text = |text: &str| text.parse::<VarLenUnicode>().expect("no NUL");
        file.new_attr::<VarLenUnicode>().create("nwb_version")?.write_scalar(&text("2.8.0"))?;
        file.new_dataset::<VarLenUnicode>().create("identifier")?.write_scalar(&text("id-1"))?;
        let subject = file.create_group("general")?.create_group("subject")?;
        subject.new_dataset::<VarLenUnicode>().create("subject_id")?.write_scalar(&text("mouse 7"))?;
        subject.new_dataset::<VarLenUnicode>().create("sex")?.write_scalar(&text("F"))?;
        subject.new_dataset::<f64>().create("weight")?.write_scalar(&0.02)?;
        let general = file.group("general")?;
        general.new_dataset::<VarLenUnicode>().create("experimenter")?.write_scalar(&text("Doe, Jane"))?;
        general.new_dataset_builder().with_data(&[text("motor"), text("ΔF/F")]).create("keywords")?;
        let devices = general.create_group("devices")?;
        devices.create_group("probe A")?.create_group("inner")?;
        devices.new_dataset::<VarLenUnicode>().create("camera")?.write_scalar(&text("an old file has texts here"))?;
        file.create_group("units")?.new_dataset_builder().with_data(&[0i64, 1, 2]).create("id")?;
        file.link_external("elsewhere.h5", "/x", "session_start_time")
    });
    let facts = scratch.inspect().facts.nwb.unwrap();
    assert_eq!(facts.version, "2.8.0");
    assert_eq!(facts.identifier.as_deref(), Some("id-1"));
    assert_eq!(facts.subject_id.as_deref(), Some("mouse 7"));
    assert_eq!((facts.session_start_time, facts.species), (None, None));
    let details = serde_json::json!({
        "sex": "F", "experimenter": ["Doe, Jane"], "keywords": ["motor", "ΔF/F"], "devices": ["camera", "probe A"],
        "unit_count": 3,
    });
    assert_eq!(serde_json::Value::Object(facts.details), details);
}

#[test]
fn one_file_of_several_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let family = folder.path().join("part-%d.h5");
    let file = hdf5::File::with_options().with_fapl(|access| access.family_options(1 << 20)).create(&family).unwrap();
    file.new_dataset_builder().with_data(&[1u8; 5000]).create("x").unwrap();
    file.close().unwrap();
    let first = std::fs::read(folder.path().join("part-0.h5")).unwrap();
    let Message::Failed { reason, .. } = Scratch::from_bytes(&first).inspect().last else { panic!("inspected") };
    assert_eq!(reason, Reason::UnsupportedLayout);
}

fn slab(origin: &[u64], shape: &[u64]) -> Hyperslab {
    Hyperslab { origin: origin.to_vec(), shape: shape.to_vec() }
}

fn fixed_ascii<const N: usize>(bytes: &[u8]) -> FixedAscii<N> {
    // SAFETY: the type only promises ASCII; libhdf5 copies the bytes as they are.
    unsafe { FixedAscii::from_ascii_unchecked(bytes) }
}
