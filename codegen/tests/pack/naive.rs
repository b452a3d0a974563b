//! What recipes and layouts mean, written down as directly as possible.

use crate::tensors::Tensors;
use llamac_formats::{PANEL_WIDTH, PanelLayout};
use llamac_ir::{DType, Dim, Layout, Recipe, Type};

/// Logical rows: their element type, the axes after the first, and each row's elements, or blocks, as bytes.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub dtype: DType,
    pub scalar: bool,
    pub inner: Vec<usize>,
    pub rows: Vec<Vec<Vec<u8>>>,
}

/// The logical rows of a recipe for a weight of type `to`, or nothing if it makes no sense.
pub fn evaluate(recipe: &Recipe, source: &Tensors, to: DType) -> Option<Matrix> {
    match recipe {
        Recipe::Tensor(name) => {
            let tensor = source.named.get(name)?;
            if tensor.dtype.is_block() && tensor.dims.len() < 2 {
                return None;
            }
            let (rows, inner) = match tensor.dims.as_slice() {
                [] => (1, vec![]),
                [rows, inner @ ..] => (*rows, inner.to_vec()),
            };
            let width: usize = inner.iter().product();
            let (of, e) = tensor.dtype.block();
            let width = width / of;
            let element = |at: usize| tensor.bytes[at * e..(at + 1) * e].to_vec();
            let rows = (0..rows).map(|r| (0..width).map(|k| element(r * width + k)).collect()).collect();
            Some(Matrix { dtype: tensor.dtype, scalar: tensor.dims.is_empty(), inner, rows })
        }
        Recipe::PermuteRows { of, heads } => {
            let mut of = evaluate(of, source, to)?;
            let old = of.rows.clone();
            if of.scalar || *heads == 0 || old.len() % heads != 0 || (old.len() / heads) % 2 != 0 {
                return None;
            }
            let d = old.len() / heads;
            for head in 0..*heads {
                for i in 0..d / 2 {
                    of.rows[head * d + i] = old[head * d + 2 * i].clone();
                    of.rows[head * d + d / 2 + i] = old[head * d + 2 * i + 1].clone();
                }
            }
            Some(of)
        }
        Recipe::Concat(parts) | Recipe::InterleavePanels(parts) => {
            let parts = parts.iter().map(|p| evaluate(p, source, to)).collect::<Option<Vec<_>>>()?;
            let mut all = parts.first()?.clone();
            for part in &parts {
                if part.scalar || part.dtype != all.dtype || part.inner != all.inner {
                    return None;
                }
            }
            if matches!(recipe, Recipe::InterleavePanels(_)) && parts.iter().any(|p| p.rows.len() != all.rows.len()) {
                return None;
            }
            all.rows = parts.into_iter().flat_map(|p| p.rows).collect();
            Some(all)
        }
        Recipe::Convert(of) => {
            let mut of = evaluate(of, source, to)?;
            if of.dtype != to {
                // Of a weight without rows as well.
                if !of.inner.iter().product::<usize>().is_multiple_of(to.block().0) {
                    return None;
                }
                for row in &mut of.rows {
                    let values: Vec<f32> = row.iter().flat_map(|piece| values(of.dtype, piece)).collect();
                    *row = pieces(to, &values)?;
                }
            }
            of.dtype = to;
            Some(of)
        }
    }
}

/// The values of an element or a block.
fn values(dtype: DType, piece: &[u8]) -> Vec<f32> {
    match dtype {
        DType::Block(format) => {
            let mut values = vec![0.0; format.elements()];
            format.decode(piece, &mut values);
            values
        }
        _ => vec![f32::from_bits(f32_bits(dtype, piece))],
    }
}

/// A row as elements or blocks, if it can be one.
fn pieces(to: DType, row: &[f32]) -> Option<Vec<Vec<u8>>> {
    let one = |values: &[f32]| match to {
        DType::F32 => values[0].to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f32(values[0]).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(values[0]).to_le_bytes().to_vec(),
        DType::Block(format) => {
            let mut block = vec![0; format.bytes()];
            format.encode(values, &mut block);
            block
        }
        _ => panic!("no weight is {to}"),
    };
    let of = to.block().0;
    row.len().is_multiple_of(of).then(|| row.chunks(of).map(one).collect())
}

/// The bits of the f32 with the element's value.
pub fn f32_bits(dtype: DType, element: &[u8]) -> u32 {
    match dtype {
        DType::F32 => u32::from_le_bytes(element.try_into().unwrap()),
        DType::BF16 => u32::from_le_bytes([0, 0, element[0], element[1]]),
        DType::F16 => {
            let bits = u32::from(u16::from_le_bytes(element.try_into().unwrap()));
            let (sign, exponent, mantissa) = (bits >> 15, (bits >> 10) & 31, bits & 1023);
            let magnitude = match exponent {
                0 => f64::from(mantissa) * 2f64.powi(-24),
                31 => return sign << 31 | 0xff << 23 | mantissa << 13,
                _ => f64::from(1024 + mantissa) * 2f64.powi(exponent as i32 - 25),
            };
            sign << 31 | (magnitude as f32).to_bits()
        }
        _ => panic!("no weight is {dtype}"),
    }
}

fn interleaved(recipe: &Recipe) -> Option<usize> {
    match recipe {
        Recipe::Convert(of) => interleaved(of),
        Recipe::InterleavePanels(parts) => Some(parts.len()),
        _ => None,
    }
}

/// Whether panels alternate anywhere else than outermost.
fn interleaves_inside(recipe: &Recipe) -> bool {
    fn anywhere(recipe: &Recipe) -> bool {
        match recipe {
            Recipe::Tensor(_) => false,
            Recipe::PermuteRows { of, .. } | Recipe::Convert(of) => anywhere(of),
            Recipe::Concat(parts) => parts.iter().any(anywhere),
            Recipe::InterleavePanels(_) => true,
        }
    }
    match recipe {
        Recipe::Convert(of) => interleaves_inside(of),
        Recipe::InterleavePanels(parts) => parts.iter().any(anywhere),
        other => anywhere(other),
    }
}

/// The bytes of a weight, or nothing if there is no such weight.
pub fn bytes(recipe: &Recipe, ty: &Type, source: &Tensors) -> Option<Vec<u8>> {
    let matrix = evaluate(recipe, source, ty.dtype)?;
    let mut dims = matrix.inner.clone();
    if !matrix.scalar {
        dims.insert(0, matrix.rows.len());
    }
    let wanted: Vec<Dim> = dims.into_iter().map(Dim::Const).collect();
    let in_panels = ty.layout == Layout::Panels;
    let alternate = interleaved(recipe);
    if ty.dims != wanted
        || ty.dtype != matrix.dtype
        || interleaves_inside(recipe)
        || in_panels && ty.rank() != 2
        || alternate.is_some() && !in_panels
    {
        return None;
    }
    if !in_panels {
        return Some(matrix.rows.into_iter().flatten().flatten().collect());
    }
    let layout = PanelLayout { dtype: ty.dtype, k: matrix.inner[0] };
    let parts = alternate.unwrap_or(1);
    let n = matrix.rows.len() / parts;
    let mut out = vec![0; layout.matrix_bytes(n) * parts];
    for (row, elements) in matrix.rows.iter().enumerate() {
        let (part, row) = (row / n, row % n);
        let panel = row / PANEL_WIDTH * parts + part;
        if ty.dtype.is_block() {
            let at = panel * layout.panel_bytes();
            layout.pack_row(row % PANEL_WIDTH, &elements.concat(), &mut out[at..at + layout.panel_bytes()]);
            continue;
        }
        for (k, element) in elements.iter().enumerate() {
            let at = panel * layout.panel_bytes() + layout.index(row % PANEL_WIDTH, k) * element.len();
            out[at..at + element.len()].copy_from_slice(element);
        }
    }
    Some(out)
}
