use super::*;

fn header() -> Header {
    let section = |kind: SectionKind, offset, bytes| Section { kind, offset, bytes, checksum: 7 };
    Header {
        bytes: 8 * 4096 + 10,
        compiler: "0.1.0".into(),
        target: "x86-64-v3".into(),
        architecture: "x86_64".into(),
        features: vec!["avx2".into(), "fma".into()],
        sections: (1..).zip(SectionKind::ALL).map(|(i, k)| section(k, i * 4096, 10)).collect(),
    }
}

#[test]
fn headers_read_back() {
    let h = header();
    assert_eq!(Header::decode(&h.encode(), h.bytes), Ok(h.clone()));
    assert_eq!(h.check_sections(), Ok(()));
}

#[test]
fn every_shorter_or_changed_header_is_refused() {
    let h = header();
    let bytes = h.encode();
    for n in 0..bytes.len() {
        assert!(Header::decode(&bytes[..n], h.bytes).is_err(), "{n} bytes");
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[n] ^= 1 << bit;
            assert!(Header::decode(&changed, h.bytes).is_err(), "byte {n}, bit {bit}");
        }
    }
    assert_eq!(Header::decode(&bytes, h.bytes - 1), Err(HeaderError::Length { found: h.bytes - 1, expected: h.bytes }));
}

#[test]
fn section_tables_must_be_in_order_and_within_the_file() {
    let refused = |edit: &dyn Fn(&mut Header), needle: &str| {
        let mut h = header();
        edit(&mut h);
        let error = h.check_sections().unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    };
    refused(&|h| h.sections[2].offset = h.sections[1].offset, "overlaps");
    refused(&|h| h.sections[0].offset = 0, "overlaps");
    refused(&|h| h.sections[1].bytes = 4097, "overlaps");
    refused(&|h| h.sections[3].offset += 64, "multiple");
    refused(&|h| h.sections[7].bytes = 11, "the file");
    refused(&|h| h.sections[7].bytes = u64::MAX, "the file");
    refused(&|h| h.sections.swap(0, 1), "wrong place");
    refused(&|h| h.sections[1].kind = SectionKind::Manifest, "twice");
    refused(&|h| h.sections.truncate(3), "no section code");
    let mut h = header();
    h.sections.retain(|s| !s.kind.optional());
    assert_eq!(h.check_sections(), Ok(()), "what is not needed to run may be absent");
}

#[test]
fn pieces_have_the_checksum_of_the_whole() {
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
    let mut sum = Checksum::new();
    bytes.chunks(777).for_each(|c| sum.update(c));
    assert_eq!(sum.value(), checksum(&bytes));
}

#[test]
fn trailers_fit_their_file() {
    let t = Trailer { offset: 8192, bytes: 100 };
    assert_eq!(Trailer::decode(&t.encode(), 8192 + 100 + 24), Some(t));
    assert_eq!(Trailer::decode(&t.encode(), 8192 + 100 + 25), None);
    assert_eq!(Trailer::decode(&[0; 24], 24), None);
    let wide = Trailer { offset: u64::MAX, bytes: 1 };
    assert_eq!(Trailer::decode(&wide.encode(), 24), None);
}
