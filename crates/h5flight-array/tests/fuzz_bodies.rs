//! The bodies of the fuzz targets, a bounded number of times, with a bound on memory.

#[path = "../fuzz/src/lib.rs"]
mod bodies;
#[path = "bounded/harness.rs"]
mod harness;

use bytes::Bytes;
use h5flight_array::codec::{self, DEFLATE, FLETCHER32, SHUFFLE, fletcher32, shuffle};
use h5flight_array::index::{ChunkPointer, ChunkRun};
use h5flight_array::inspect::{Frame, Message, Object, ObjectKind};
use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Filter, Space, Storage, Text};
use libdeflater::{CompressionLvl, Compressor};

#[test]
fn the_text_of_a_selection() {
    let list = (0..500).map(|at| (at * 7 % 500).to_string()).collect::<Vec<_>>().join(",");
    let seeds = [
        "0:100, 5, ::2",
        "..., [1,5,7], -1",
        "[True,False,true]",
        "\"a \\\" name\", 'b', 0:10",
        "()",
        "-9223372036854775808:9223372036854775807:-9223372036854775808",
        "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
        "np.newaxis",
        "points[[0,1],[5,2],[-1,0]], \"t\"",
        &format!("points[{}]", "[1],".repeat(50_000)),
        &format!("[{list}]"),
        &"1,".repeat(100_000),
        &"\"\",".repeat(30_000),
        &format!("[{}]", "1,".repeat(100_000)),
        &format!("[{}]", "true,".repeat(50_000)),
    ];
    harness::run("selection_text", bodies::selection_text, &seeds.map(|text| text.as_bytes().to_vec()));
}

#[test]
fn the_text_of_an_expression() {
    let seeds = [
        "start_time > 10 AND condition IN ('a', 'b') OR NOT (correct = true)",
        "\"a \"\" name\" IS NOT NULL and x between -1e300 and .5",
        "a LIKE '%\\\\_%' or b not contains 'it''s'",
        "spike times sub-001 species = 'Mus musculus' \"two words\"",
        "spikes in cortex and (raw)",
        "x <= 18446744073709551615 AND y <> -9223372036854775808",
        &"(".repeat(60_000),
        &"NOT ".repeat(16_000),
        &"a=1 OR ".repeat(9_000),
        &format!("id IN ({}1)", "1,".repeat(32_000)),
        &"'".repeat(65_536),
        &"a ".repeat(32_768),
    ];
    harness::run("expression_text", bodies::expression_text, &seeds.map(|text| text.as_bytes().to_vec()));
}

#[test]
fn stored_chunks() {
    let values: Vec<u8> = (0..2048u32).flat_map(|at| (at as u16 / 3).to_le_bytes()).collect();
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut deflated = vec![0; compressor.zlib_compress_bound(values.len())];
    let bytes = compressor.zlib_compress(&shuffle::shuffle(&values, 2), &mut deflated).unwrap();
    deflated.truncate(bytes);
    let checked = [deflated.clone(), fletcher32::checksum(&deflated).to_le_bytes().to_vec()].concat();
    // As the body reads it: filters with their parameters, bytes of an element, of the chunk, no mask, what is stored.
    let known: Vec<u32> = codec::known().map(|(id, _)| id).collect();
    let at = |id| known.iter().position(|known| *known == id).unwrap() as u8;
    let sizes = |bytes: u32| [&[0, 1, 1, 255][..], &bytes.to_le_bytes(), &[0; 5]].concat();
    let three = [2, at(SHUFFLE), 1, 2, at(DEFLATE), 0, at(FLETCHER32), 0];
    let mut seeds = vec![
        [&three[..], &sizes(values.len() as u32), &checked].concat(),
        [&[0, at(DEFLATE), 0][..], &sizes(values.len() as u32), &deflated].concat(),
        // A stream that is longer than its chunk is declared.
        [&[0, at(DEFLATE), 0][..], &sizes(1000), &deflated].concat(),
    ];
    for filter in 0..known.len() as u8 {
        seeds.push([&[0, filter, 5, 2, 2, 8, 16, 1][..], &sizes(64), &[0; 8], &values[..200]].concat());
        seeds.push(
            [
                &[1, filter, 0, at(SHUFFLE), 0][..],
                &sizes(200),
                &[0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 64],
                &deflated[..200],
            ]
            .concat(),
        );
    }
    harness::run("chunk_decoders", bodies::chunk_decoders, &seeds);
}

#[test]
fn packed_runs_of_chunk_pointers() {
    let pointers: Vec<ChunkPointer> =
        (0..300).map(|number| ChunkPointer { number, offset: 900 + number * 77, bytes: 70, mask: 0 }).collect();
    let run = ChunkRun::pack(&pointers);
    // First and last number, pointers as an edge or any number, not packed again, the size of the file.
    let exact = [&[0, 255, 43, 1, 0, 0, 0, 0, 0, 0, 255, 44, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &run.packed].concat();
    let columns = [&[0, 1, 0, 1, 200][..], &[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0], &[9; 32]].concat();
    harness::run("chunk_runs", bodies::chunk_runs, &[exact, columns]);
}

#[test]
fn values_from_a_cache() {
    // Shape [3], an element type by number, and values that could be strings, sequences or numbers.
    let values = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c".as_slice();
    let of = |head: &[u8]| [head, values].concat();
    let mut seeds: Vec<Vec<u8>> = (0..16).map(|kind| of(&[1, 3, kind, 0, 0, 0, 0, 0])).collect();
    seeds.push(of(&[1, 2, 10, 10, 5, 0, 0, 0, 0]));
    seeds.push(of(&[2, 2, 2, 14, 3, 5, 0, 10, 0, 0, 1, 6, 0, 0, 0, 0]));
    seeds.push(of(&[1, 1, 13, 2, 2, 3, 5, 0, 0, 0, 0, 0]));
    harness::run("cached_values", bodies::cached_values, &seeds);
}

fn array() -> ArrayMeta {
    let member = |name: &str, offset, element| h5flight_array::meta::Member { name: name.into(), offset, element };
    ArrayMeta {
        space: Space::Simple { shape: vec![100, 7] },
        max_shape: vec![None, Some(7)],
        element: ElementType::Compound {
            bytes: 24,
            members: vec![
                member("t", 0, ElementType::Float { bytes: 8, order: ByteOrder::Big }),
                member("s", 8, ElementType::VarString { text: Text::Utf8 }),
            ],
        },
        converted: false,
        type_note: String::new(),
        storage: Storage::Chunked { chunk_shape: vec![10, 7] },
        filters: vec![Filter { id: 1, name: "deflate".into(), params: vec![4] }],
        fill: None,
    }
}

#[test]
fn frames_of_the_worker() {
    let object = Object {
        path: "/a".into(),
        kind: ObjectKind::Dataset,
        attributes: serde_json::from_str(r#"{"unit": "volts", "rate": 30000.5, "list": [[1, 2], [null]]}"#).unwrap(),
        attribute_types: serde_json::from_str(r#"{"rate": "<f8", "list": ["|O", [2], "words"]}"#).unwrap(),
        array: Some(array()),
        problem: None,
        address: 800,
    };
    let run = ChunkRun::pack(&[ChunkPointer { number: 0, offset: 9, bytes: 9, mask: 1 }]);
    let frames = [
        Frame::plain(Message::Object(Box::new(object))),
        Frame::run(&run),
        Frame { message: Message::Block { at: 3 }, data: Bytes::from_static(b"abc") },
        Frame::plain(Message::Done),
    ];
    let mut wire = Vec::new();
    frames.iter().for_each(|frame| frame.write_to(&mut wire).unwrap());
    // A head that announces 272 MiB, and JSON that is larger in memory than on the wire.
    let head = [(16u32 << 20).to_le_bytes(), (256u32 << 20).to_le_bytes()].concat();
    let values = format!("{{\"is\":\"object\",\"attributes\":{{\"a\":[{}0]}}}}", "0,[],".repeat(2000));
    let wide = [&(values.len() as u32).to_le_bytes()[..], &[0; 4], values.as_bytes()].concat();
    harness::run("worker_frames", bodies::worker_frames, &[wire, head, wide]);
}

#[test]
fn plans_of_any_facts() {
    let json = |meta: &ArrayMeta| [&[3][..], &serde_json::to_vec(meta).unwrap()].concat();
    let huge = ArrayMeta { space: Space::Simple { shape: vec![u64::MAX, 7] }, ..array() };
    harness::run("plans", bodies::plans, &[json(&array()), json(&huge)]);
}
