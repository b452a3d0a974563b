//! The search against llama.cpp's: the same weights, every format.

use crate::files;
use llamac_formats::BlockFormat;
use safetensors::SafeTensors;

/// Mean squared error of encoding `x`.
fn error(format: BlockFormat, x: &[f32]) -> f64 {
    let mut blocks = vec![0; x.len() / format.elements() * format.bytes()];
    format.encode(x, &mut blocks);
    let mut y = vec![0.0; x.len()];
    format.decode(&blocks, &mut y);
    x.iter().zip(&y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>() / x.len() as f64
}

/// `llama_cpp_error.json` holds what llama.cpp's quantiser (without importance weights) leaves, by tensor and format.
#[test]
fn no_tensor_is_worse_than_llama_cpp() {
    let file = files::read("examples/models/bard/model.safetensors");
    let weights = SafeTensors::deserialize(&file).unwrap();
    let theirs: serde_json::Value =
        serde_json::from_slice(&files::read("formats/tests/data/llama_cpp_error.json")).unwrap();
    let theirs = theirs.as_object().unwrap();
    assert_eq!(theirs.len(), 29);
    let mut table = String::new();
    let mut worse = 0;
    for format in BlockFormat::ALL {
        let (mut least, mut greatest, mut sum) = (f64::INFINITY, 0.0f64, 0.0);
        for (name, theirs) in theirs {
            let bytes = weights.tensor(name).unwrap().data();
            let x: Vec<f32> = bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))
                .collect();
            let ratio = error(format, &x) / theirs[format.name()].as_f64().unwrap();
            worse += usize::from(ratio > 1.0);
            (least, greatest, sum) = (least.min(ratio), greatest.max(ratio), sum + ratio);
        }
        table += &format!("{format}: {least:.4} to {greatest:.4}, mean {:.4}\n", sum / theirs.len() as f64);
    }
    println!("squared error over llama.cpp's\n{table}");
    assert_eq!(worse, 0, "tensors worse than llama.cpp's:\n{table}");
}
