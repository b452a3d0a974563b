//! What readers need of their operands: the table of the `layout` pass, as conditions on accesses.

use llamac_formats::{Access, Extent};
use llamac_ir::access::is_dense;
use llamac_ir::{ConstKind, Dim, DotSpec, Graph, Op, Type, Value};

/// Why an operand cannot be read where it is.
pub type Refusal = String;

/// Strided, in memory.
pub fn strided(graph: &Graph, access: &Access<Value>) -> Result<(), Refusal> {
    match graph.def_op(access.base) {
        Op::Const(ConstKind::Splat(_)) | Op::Iota => Err("it is generated and lies nowhere".into()),
        _ => Ok(()),
    }
}

/// Strided, in memory, and nothing fetched by index.
pub fn direct(graph: &Graph, access: &Access<Value>) -> Result<(), Refusal> {
    strided(graph, access)?;
    match access.indirects.is_empty() {
        true => Ok(()),
        false => Err("its elements are fetched by index".into()),
    }
}

/// Dense from the start of its memory.
pub fn dense(graph: &Graph, access: &Access<Value>, ty: &Type) -> Result<(), Refusal> {
    strided(graph, access)?;
    match is_dense(access, ty) {
        true => Ok(()),
        false => Err("it is not dense".into()),
    }
}

/// Elements along the last axis lie one after the other, and nothing is fetched by index.
pub fn last_axis_dense(graph: &Graph, access: &Access<Value>, ty: &Type) -> Result<(), Refusal> {
    direct(graph, access)?;
    match (access.strides.last(), ty.dims.last()) {
        (Some(&s), Some(&d)) if s != Extent::ONE && d != Dim::Const(1) => Err(format!("its last stride is {s}")),
        _ => Ok(()),
    }
}

/// The left side of a GEMM whose inputs are the last axis.
pub fn gemm_left(graph: &Graph, access: &Access<Value>, ty: &Type) -> Result<(), Refusal> {
    last_axis_dense(graph, access, ty)?;
    let rows: Vec<usize> = (0..ty.rank() - 1).collect();
    one_stride(access, ty, &rows, "rows")
}

/// One side of a dot of two strided operands.
pub fn dot_side(graph: &Graph, access: &Access<Value>, ty: &Type, axes: &SideAxes) -> Result<(), Refusal> {
    strided(graph, access)?;
    let moving = axes.free.iter().chain(&axes.contract);
    if access.indirects.iter().any(|i| moving.clone().any(|&a| i.strides[a] != Extent::ZERO)) {
        return Err("its rows are fetched by index".into());
    }
    one_stride(access, ty, &axes.free, "free axes")?;
    one_stride(access, ty, &axes.contract, "contracted axes")
}

/// The axes of one side of a dot.
pub struct SideAxes {
    /// In the order of the spec.
    pub batch: Vec<usize>,
    /// Ascending.
    pub free: Vec<usize>,
    /// In the order of the spec.
    pub contract: Vec<usize>,
}

impl SideAxes {
    /// The axes of the left side.
    pub fn left(spec: &DotSpec, rank: usize) -> SideAxes {
        SideAxes::of(spec.batch.iter().map(|p| p.0).collect(), spec.contract.iter().map(|p| p.0).collect(), rank)
    }

    /// The axes of the right side.
    pub fn right(spec: &DotSpec, rank: usize) -> SideAxes {
        SideAxes::of(spec.batch.iter().map(|p| p.1).collect(), spec.contract.iter().map(|p| p.1).collect(), rank)
    }

    fn of(batch: Vec<usize>, contract: Vec<usize>, rank: usize) -> SideAxes {
        let free = (0..rank).filter(|a| !batch.contains(a) && !contract.contains(a)).collect();
        SideAxes { batch, free, contract }
    }

    /// The axes as batch, free, contracted: the order in which a dense operand always is readable.
    pub fn canonical(&self) -> Vec<usize> {
        self.batch.iter().chain(&self.free).chain(&self.contract).copied().collect()
    }
}

/// Whether axes, from the outermost in, can be stepped through with one stride.
fn one_stride(access: &Access<Value>, ty: &Type, axes: &[usize], what: &str) -> Result<(), Refusal> {
    let mut inner: Option<(Extent, Extent)> = None;
    for &axis in axes.iter().rev().filter(|&&a| ty.dims[a] != Dim::Const(1)) {
        let (stride, extent) = (access.strides[axis], ty.dims[axis].extent());
        if let Some((next, size)) = inner
            && stride != next.times(size)
        {
            return Err(format!("its {what} do not lie one after the other"));
        }
        inner = Some((stride, extent));
    }
    Ok(())
}
