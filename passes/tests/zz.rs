mod support;
use llamac_ir::*;
#[test]
fn zz() {
    for (what, n) in [("elementwise", 20000usize), ("views", 20000), ("residuals", 5000), ("dots", 2000)] {
        let b = Bounds { rows: 4, outputs: 1, tokens: 8, slots: 1 };
        let mut g = Builder::new("deep", b);
        let mut x = g.input("x", Type::new(DType::F32, [Dim::ROWS, Dim::Const(4), Dim::Const(4)]), None).unwrap();
        let mut y = x;
        for i in 0..n {
            match what {
                "elementwise" => x = g.unary(UnaryOp::Neg, x).and_then(|v| g.unary(UnaryOp::Tanh, v)).unwrap(),
                "views" => { x = g.transpose(x, &[0, 2, 1]).unwrap(); x = g.reshape(x, &[Dim::ROWS, Dim::Const(2), Dim::Const(8)]).unwrap(); 
                    x = g.transpose(x, &[0, 2, 1]).unwrap(); x = g.reshape(x, &[Dim::ROWS, Dim::Const(4), Dim::Const(4)]).unwrap(); 
                    y = g.add(y, x).unwrap(); }
                "dots" => { let m = g.reshape(x, &[Dim::ROWS, Dim::Const(16)]).unwrap(); let w = g.weight(Recipe::tensor(format!("w{i}")), DType::F32, &[16, 16]).unwrap();
                    let d = g.linear(m, w).unwrap(); let s = g.add(m, d).unwrap(); x = g.reshape(s, &[Dim::ROWS, Dim::Const(4), Dim::Const(4)]).unwrap(); }
                _ => { let r = g.reduce(ReduceOp::Sum, x, 2).unwrap(); let r = g.broadcast(r, &[Dim::ROWS, Dim::Const(4), Dim::Const(4)], &[0, 1]).unwrap(); x = g.add(x, r).unwrap(); }
            }
        }
        if what == "views" { x = y; }
        g.output("y", x);
        let g = g.finish();
        let t = std::time::Instant::now();
        let (a, fin) = support::stop_after(&g, &Default::default(), "fuse-rows");
        println!("{what} {:?} {} {}", t.elapsed(), a.order().len(), fin.ledger.entries.len());
        for r in fin.ran { println!("   {} {:?}", r.name, r.time); }
    }
}
