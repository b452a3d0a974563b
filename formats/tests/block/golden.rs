//! Decoding, bit for bit.

use crate::files;
use llamac_formats::BlockFormat;
use llamac_formats::block::Fields;

#[test]
fn every_format_decodes_bit_for_bit() {
    let gguf = files::read("tests/golden/quants.gguf");
    let tensors = files::gguf_tensors(&gguf);
    let expected: serde_json::Value = serde_json::from_slice(&files::read("tests/golden/quants.json")).unwrap();
    for format in BlockFormat::ALL {
        let name = format.name();
        let bits: Vec<u32> = expected[name]["f32_hex"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hex| u32::from_str_radix(hex.as_str().unwrap(), 16).unwrap())
            .collect();
        assert_eq!(bits.len(), 3 * 256);
        let blocks = &tensors[name].1[..bits.len() / format.elements() * format.bytes()];
        let mut out = vec![0.0; bits.len()];
        format.decode(blocks, &mut out);
        assert_eq!(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits, "{name}");
    }
}

#[test]
fn join_undoes_split() {
    let gguf = files::read("tests/golden/quants.gguf");
    let tensors = files::gguf_tensors(&gguf);
    for format in BlockFormat::ALL {
        let blocks = tensors[format.name()].1;
        let mut fields = Fields::default();
        let mut again = vec![0xa5; format.bytes()];
        for block in blocks[..3 * 256 / format.elements() * format.bytes()].chunks_exact(format.bytes()) {
            format.split(block, &mut fields);
            format.join(&fields, &mut again);
            assert_eq!(again, block, "{format}");
        }
    }
}

#[test]
fn names_and_sizes() {
    for format in BlockFormat::ALL {
        assert_eq!(BlockFormat::from_name(format.name()), Some(format));
        assert_eq!(format.elements() % format.part(), 0);
    }
    assert_eq!(BlockFormat::from_name("q4_K"), None);
    assert_eq!(BlockFormat::from_name("f32"), None);
}
