use super::*;

fn table() -> Table {
    let column = |name: &str, kind| Column { name: name.into(), kind };
    Table { table: "t".into(), columns: vec![column("a", Kind::Text), column("b", Kind::Bytes)] }
}

fn dump(rows: &[(Option<&str>, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::begin(&mut out, "sqlite", 2).unwrap();
    writer.table(&table()).unwrap();
    for (text, bytes) in rows {
        let mut row = String::new();
        fields::push(&mut row, *text);
        row.push('\t');
        fields::push(&mut row, bytes.map(fields::hex).as_deref());
        row.push('\n');
        writer.rows(row.as_bytes()).unwrap();
    }
    writer.end_table(Some(9)).unwrap();
    writer.finish().unwrap();
    out
}

#[test]
fn values_come_back_whatever_they_hold() {
    let rows: [(Option<&str>, Option<&[u8]>); 5] = [
        (Some("\\."), Some(b"\x00\xff\\")),
        (Some("\\N"), None),
        (None, Some(b"")),
        (Some(""), None),
        (Some("tab\t line\n return\r back\\slash µ \u{8}\u{b}\u{c}"), Some(b"\n\t")),
    ];
    let bytes = dump(&rows);
    let mut from = bytes.as_slice();
    let (mut reader, header) = Reader::begin(&mut from).unwrap();
    assert_eq!((header.backend.as_str(), header.schema), ("sqlite", 2));
    let read = reader.table().unwrap().unwrap();
    assert_eq!(read, table());
    for (text, bytes) in rows {
        let row = reader.row().unwrap().unwrap().to_vec();
        let values: Vec<_> = Fields::parse(&row, &read).unwrap().into_values().map(|(_, value)| value).collect();
        assert_eq!(values[0].as_deref(), text);
        assert_eq!(values[1].as_deref().map(|text| fields::unhex(text).unwrap()).as_deref(), bytes);
    }
    assert!(reader.row().unwrap().is_none());
    assert_eq!(reader.end_table().unwrap().last_id, Some(9));
    assert!(reader.table().unwrap().is_none());
}

#[test]
fn a_dump_that_is_cut_off_or_has_more_is_damaged_at_every_byte() {
    let whole = dump(&[(Some("a"), None), (None, Some(b"b"))]);
    assert_eq!(files_of_dump(&mut whole.as_slice()).unwrap(), []);
    for end in 0..whole.len() {
        let error = files_of_dump(&mut &whole[..end]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Damaged, "cut at {end}: {error}");
    }
    let more = [whole.as_slice(), b"x"].concat();
    assert_eq!(files_of_dump(&mut more.as_slice()).unwrap_err().kind, ErrorKind::Damaged);
}
