//! RoPE tables to the bit, against values of an independent program that rounds every operation to f32.

use llamac_formats::{RopeScaling, RopeTable};

fn table(theta: f64, head_dim: usize, scaling: RopeScaling) -> RopeTable {
    RopeTable { theta, head_dim, scaling }
}

fn llama3(factor: f64, original: f64) -> RopeScaling {
    RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: original,
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn unscaled_frequencies() {
    let expected = [0x3f800000, 0x3ea1e89b, 0x3dcccccd, 0x3d0186e3, 0x3c23d70a, 0x3b4f3e38, 0x3a83126f, 0x39a5cb60];
    assert_eq!(bits(&table(1e4, 16, RopeScaling::Default).inv_freq()), expected);
}

#[test]
fn linear_scaling_divides() {
    let expected = [0x3ecccccd, 0x3d23d70a, 0x3b83126e, 0x39d1b718];
    assert_eq!(bits(&table(1e4, 8, RopeScaling::Linear { factor: 2.5 }).inv_freq()), expected);
}

#[test]
fn llama3_scaling_of_the_1b() {
    let expected = [
        0x3f800000, 0x3f29e1c6, 0x3ee177bc, 0x3e959ee3, 0x3e4693b0, 0x3e03c6a0, 0x3daee4ad, 0x3d681e67, 0x3d1a08c8,
        0x3ccc6f49, 0x3c87a9c3, 0x3c340d6d, 0x3beef74f, 0x3b9e9402, 0x3b527720, 0x3aa9279b, 0x39e13620, 0x38cb98f7,
        0x37a3418d, 0x3758ac81, 0x370fc8f8, 0x36bed4f4, 0x367d45c3, 0x3628126b, 0x35df10c4, 0x359406cb, 0x35447610,
        0x35025f34, 0x34ad07a7, 0x3465a54d, 0x341864a7, 0x33ca41b0,
    ];
    assert_eq!(bits(&table(5e5, 64, llama3(32.0, 8192.0)).inv_freq()), expected);
}

#[test]
fn llama3_scaling_of_a_short_context() {
    let expected = [
        0x3f800000, 0x3ee177bc, 0x3e4693b0, 0x3d945633, 0x3c2ca88b, 0x3b07a9c3, 0x3a6ef74f, 0x39d27720, 0x39395d21,
        0x38a3418d, 0x380fc8f8, 0x377d45c3, 0x36df10c4, 0x36447610, 0x35ad07a7, 0x351864a7,
    ];
    assert_eq!(bits(&table(5e5, 32, llama3(8.0, 256.0)).inv_freq()), expected);
}

#[test]
fn cosines_and_sines_of_far_positions() {
    let table = table(5e5, 64, llama3(32.0, 8192.0));
    let (cos, sin) = table.cos_sin(777);
    assert_eq!(bits(&cos[..6]), [0xbf04892e, 0x3f6c17bc, 0xbf76cf9c, 0x3f25c9f6, 0x3f7e34a5, 0x3f5b7588]);
    assert_eq!(bits(&sin[..6]), [0xbf5b0567, 0x3ec5f3ac, 0x3e87f23e, 0x3f43106f, 0xbdf20e9d, 0xbf03cf30]);
    let (cos, sin) = table.cos_sin(131_071);
    assert_eq!(bits(&cos[..6]), [0xbf51675e, 0x3f3b8e39, 0xbebed56b, 0x3f74dba8, 0xbf0f7ef4, 0xbf7fe777]);
    assert_eq!(bits(&sin[..6]), [0xbf13430a, 0x3f2e3cf4, 0x3f6d8dad, 0x3e9567f8, 0x3f54008f, 0x3ce021fe]);
}

#[test]
fn a_filled_table_is_its_rows() {
    let table = table(1e4, 16, RopeScaling::Default);
    let (mut cos, mut sin) = (vec![0.0; 5 * 8], vec![0.0; 5 * 8]);
    table.fill(3, &mut cos, &mut sin);
    for row in 0..5 {
        let expected = table.cos_sin(3 + row);
        assert_eq!((cos[row * 8..][..8].to_vec(), sin[row * 8..][..8].to_vec()), expected);
    }
}

#[test]
fn factors_divide_each_frequency() {
    let plain = table(1e4, 8, RopeScaling::Default).inv_freq();
    let factors = vec![1.0, 2.0, 4.0, 3.0];
    let expected: Vec<u32> = plain.iter().zip(&factors).map(|(f, by)| (f / by).to_bits()).collect();
    assert_eq!(bits(&table(1e4, 8, RopeScaling::Factors { factors }).inv_freq()), expected);
}
