//! Packed panels: what goes in comes out, and lies where the layout says.

use llamac_formats::block::Fields;
use llamac_formats::{BlockFormat, DType, PANEL_WIDTH, PanelLayout};

/// Bytes that repeat late.
fn noise(seed: usize, n: usize) -> Vec<u8> {
    let mut x = seed as u64 * 2 + 1;
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// A row of blocks of finite numbers.
fn row(format: BlockFormat, seed: usize, k: usize) -> Vec<u8> {
    let mut bytes = noise(seed, k / format.elements() * format.bytes());
    let mut fields = Fields::default();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        format.split(block, &mut fields);
        fields.d &= 0xbbff;
        fields.m &= 0xbbff;
        format.join(&fields, block);
    }
    bytes
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn rows_of_blocks_come_back_to_the_bit() {
    for format in BlockFormat::ALL {
        for blocks in [1, 2, 3, 8] {
            let k = blocks * format.elements();
            let layout = PanelLayout { dtype: DType::Block(format), k };
            let rows: Vec<Vec<u8>> = (0..13).map(|n| row(format, n + 100 * blocks, k)).collect();
            let slices: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let mut panel = vec![0xa5; layout.panel_bytes()];
            layout.pack_panel(&slices, &mut panel);
            // In another order, row by row, the same.
            let mut again = vec![0; layout.panel_bytes()];
            (0..13).rev().for_each(|n| layout.pack_row(n, &rows[n], &mut again));
            assert_eq!(panel, again, "{format}");
            for (n, row) in rows.iter().enumerate() {
                let mut taken = vec![0xa5; row.len()];
                layout.unpack_row(n, &panel, &mut taken);
                assert_eq!(&taken, row, "{format} {k} {n}");
                let mut want = vec![0.0; k];
                format.decode(row, &mut want);
                for inputs in [0..k, 0..1, k - 1..k, k / 2 - 3..k / 2 + 9, 7..7] {
                    let mut out = vec![f32::NAN; inputs.len()];
                    layout.decode_row(n, &panel, inputs.clone(), &mut out);
                    assert_eq!(bits(&out), bits(&want[inputs.clone()]), "{format} {k} {n} {inputs:?}");
                }
            }
            let mut out = vec![f32::NAN; k];
            layout.decode_row(15, &panel, 0..k, &mut out);
            assert!(out.iter().all(|v| *v == 0.0), "{format}: an output without a row");
        }
    }
}

#[test]
fn panels_of_blocks_are_about_as_large_as_the_blocks() {
    for (format, bytes) in [
        (BlockFormat::Q8_0, 8 * 34),
        (BlockFormat::Q4_0, 8 * 18),
        (BlockFormat::Q4_1, 8 * 20),
        (BlockFormat::Q5_0, 8 * 22),
        (BlockFormat::Q5_1, 8 * 24),
        (BlockFormat::Q4K, 144),
        (BlockFormat::Q5K, 176),
        (BlockFormat::Q6K, 212),
    ] {
        let layout = PanelLayout { dtype: DType::Block(format), k: 256 };
        assert_eq!(layout.panel_bytes(), bytes * PANEL_WIDTH, "{format}");
        assert_eq!(layout.matrix_bytes(17), 2 * bytes * PANEL_WIDTH, "{format}");
    }
    // A second block that is not there has its room.
    assert_eq!(PanelLayout { dtype: DType::Block(BlockFormat::Q4_0), k: 96 }.panel_bytes(), 2 * 576);
}

/// Two places of the table, by hand.
#[test]
fn quants_lie_where_the_layout_says() {
    let mut fields = Fields { d: 0x1234, ..Fields::default() };
    fields.quants[8 * 2 + 3] = 0x25; // 6 bits: nibble 5, high bits 2
    fields.quants[8 * 2 + 4 + 3] = 0x1a;
    let mut block = vec![0; BlockFormat::Q6K.bytes()];
    BlockFormat::Q6K.join(&fields, &mut block);
    let layout = PanelLayout { dtype: DType::Block(BlockFormat::Q6K), k: 256 };
    let mut panel = vec![0; layout.panel_bytes()];
    layout.pack_row(9, &block, &mut panel);
    assert_eq!(panel[18..20], [0x34, 0x12]);
    let part = 64 + 256;
    assert_eq!(panel[part + 2 * 64 + 9 * 4 + 3], 0xa5);
    // Inputs 19 and 23 are fields 0 and 1 of the second vector of high bits.
    assert_eq!(panel[part + 256 + 64 + 9 * 4 + 3], 0b0110);

    let mut fields = Fields { d: 1, m: 2, ..Fields::default() };
    fields.scales[6] = 0x2b;
    fields.mins[7] = 0b10_01_11;
    let mut block = vec![0; BlockFormat::Q4K.bytes()];
    BlockFormat::Q4K.join(&fields, &mut block);
    let layout = PanelLayout { dtype: DType::Block(BlockFormat::Q4K), k: 256 };
    let mut panel = vec![0; layout.panel_bytes()];
    layout.pack_row(1, &block, &mut panel);
    let plane = |p: usize| u32::from_le_bytes(panel[64 + p * 64 + 4..][..4].try_into().unwrap());
    assert_eq!([plane(0), plane(1), plane(2)], [0b11 << 30, 0b01 << 30 | 0x2b << 6, 0b10 << 30]);
}

#[test]
fn scalars_widen() {
    for (dtype, element, value) in [
        (DType::F32, 1.25f32.to_le_bytes().to_vec(), 1.25),
        (DType::F16, 0x3e00u16.to_le_bytes().to_vec(), 1.5),
        (DType::BF16, 0x3fa0u16.to_le_bytes().to_vec(), 1.25),
    ] {
        let layout = PanelLayout { dtype, k: 3 };
        let mut row = vec![0; 3 * element.len()];
        row[2 * element.len()..].copy_from_slice(&element);
        let mut panel = vec![0; layout.panel_bytes()];
        layout.pack_row(5, &row, &mut panel);
        let mut out = [9.0; 2];
        layout.decode_row(5, &panel, 1..3, &mut out);
        assert_eq!(out, [0.0, value]);
    }
}
