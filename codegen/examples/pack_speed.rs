//! How fast weights are packed: GB/s of packed bytes for each kind of weight, `pack_speed [threads] [rows] [inputs]`.

use llamac_codegen::pack::{WeightPlan, pack};
use llamac_ir::{DType, Dim, Layout, Recipe, TensorSource, TensorView, Type};
use std::time::Instant;

/// Copies of one matrix under any name.
struct Same {
    dtype: DType,
    dims: [usize; 2],
    bytes: Vec<u8>,
}

impl TensorSource for Same {
    fn tensor(&self, _name: &str) -> Option<TensorView<'_>> {
        Some(TensorView { dtype: self.dtype, dims: &self.dims, bytes: &self.bytes })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let threads = arguments.next().transpose()?.unwrap_or(2);
    let rows = arguments.next().transpose()?.unwrap_or(32768);
    let inputs = arguments.next().transpose()?.unwrap_or(4096);
    let weight = || Recipe::tensor("w");
    let half = || Recipe::InterleavePanels(vec![weight(), weight()]);
    let permuted = || Recipe::PermuteRows { of: Box::new(weight()), heads: rows / 64 };
    let widened = || Recipe::Convert(Box::new(weight()));
    let cases = [
        (DType::BF16, DType::BF16, weight(), Layout::Panels, 1),
        (DType::F16, DType::F16, weight(), Layout::Panels, 1),
        (DType::F32, DType::F32, weight(), Layout::Panels, 1),
        (DType::BF16, DType::BF16, half(), Layout::Panels, 2),
        (DType::BF16, DType::BF16, permuted(), Layout::Panels, 1),
        (DType::BF16, DType::F32, widened(), Layout::Panels, 1),
        (DType::F16, DType::F32, widened(), Layout::Panels, 1),
        (DType::F16, DType::F32, widened(), Layout::Rows, 1),
        (DType::F32, DType::F32, weight(), Layout::Rows, 1),
    ];
    for (from, to, recipe, layout, parts) in cases {
        let bytes = (0..rows * inputs * from.bytes()).map(|i| (i * 37 % 119) as u8).collect();
        let source = Same { dtype: from, dims: [rows, inputs], bytes };
        let mut plan = WeightPlan::new();
        let mut ty = Type::new(to, [Dim::Const(rows * parts), Dim::Const(inputs)]);
        ty.layout = layout;
        let title = format!("{recipe} of {from} as {ty}");
        plan.add_weight(recipe, ty)?;
        // Touched beforehand: the first touch of a page costs the operating system more than packing it.
        let mut out = vec![1; plan.total_bytes()];
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let begin = Instant::now();
            pack(&plan, &source, &mut out, threads, &mut |_, _| ())?;
            best = best.min(begin.elapsed().as_secs_f64());
        }
        println!("{:6.2} GB/s  {title}", out.len() as f64 / best * 1e-9);
    }
    Ok(())
}
