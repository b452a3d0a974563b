//! An artifact's weights as a source of tensors: taken out of their panels again.

use super::VerifyError;
use llamac_formats::program::WeightInfo;
use llamac_formats::{DType, PANEL_WIDTH, PanelLayout};
use llamac_ir::{Graph, Layout, Op, Recipe, TensorSource, TensorView};
use llamac_runtime::Executable;
use std::collections::HashMap;

/// The weights that a graph names, row-major.
pub(super) struct PackedWeights {
    tensors: HashMap<String, Tensor>,
}

struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

impl PackedWeights {
    /// Takes every weight of the graph from the program. The graph names them by their places then, not by recipes, which are
    /// of the model's tensors.
    pub(super) fn take(graph: &mut Graph, executable: &Executable) -> Result<PackedWeights, VerifyError> {
        let infos = &executable.program().weights;
        let section = executable.weights().as_slice();
        let mut tensors = HashMap::new();
        for inst in graph.order().to_vec() {
            let Op::Weight(recipe) = graph.op(inst) else { continue };
            let ty = graph.ty(graph.result(inst));
            let dims: Option<Vec<usize>> = ty.dims.iter().map(|d| d.as_const()).collect();
            let text = recipe.to_string();
            let is = |w: &WeightInfo| {
                w.recipe == text
                    && w.dtype == ty.dtype
                    && Some(&w.dims) == dims.as_ref()
                    && w.panels == (ty.layout == Layout::Panels)
            };
            let missing = || VerifyError::Weight { recipe: text.clone(), ty: ty.to_string() };
            let index = infos.iter().position(is).ok_or_else(missing)?;
            let info = &infos[index];
            let bytes = section.get(info.offset..info.offset.saturating_add(info.bytes)).ok_or_else(missing)?;
            let bytes = if info.panels { unpack(info, interleaved(recipe), bytes) } else { Some(bytes.to_vec()) };
            let bytes = bytes.ok_or_else(missing)?;
            let name = format!("weight {index}");
            tensors.insert(name.clone(), Tensor { dtype: info.dtype, dims: info.dims.clone(), bytes });
            *graph.op_mut(inst) = Op::Weight(Recipe::Tensor(name));
        }
        Ok(PackedWeights { tensors })
    }
}

/// How many parts' panels alternate.
fn interleaved(recipe: &Recipe) -> usize {
    match recipe {
        Recipe::Convert(of) => interleaved(of),
        Recipe::InterleavePanels(parts) => parts.len().max(1),
        _ => 1,
    }
}

/// The rows of a matrix in panels, those of one part after those of the other; `None` where the bytes are fewer than it has.
fn unpack(info: &WeightInfo, parts: usize, panels: &[u8]) -> Option<Vec<u8>> {
    let &[n, k] = info.dims.as_slice() else { return None };
    if !info.dtype.is_weight() {
        return None;
    }
    let layout = PanelLayout { dtype: info.dtype, k };
    let (size, row) = (layout.panel_bytes(), info.dtype.storage(k)?);
    let mut out = vec![0; n.checked_mul(row)?];
    let rows = n / parts;
    for (i, out) in out.chunks_exact_mut(row.max(1)).enumerate() {
        let (part, within) = (i / rows, i % rows);
        let panel = within / PANEL_WIDTH * parts + part;
        layout.unpack_row(within % PANEL_WIDTH, panels.get(panel * size..(panel + 1) * size)?, out);
    }
    Some(out)
}

impl TensorSource for PackedWeights {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let t = self.tensors.get(name)?;
        Some(TensorView { dtype: t.dtype, dims: &t.dims, bytes: &t.bytes })
    }

    fn describe(&self) -> String {
        "the artifact's weights".to_owned()
    }
}
