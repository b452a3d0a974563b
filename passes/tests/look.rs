mod support;
#[test]
fn look() {
    let name = std::env::var("MODEL").unwrap_or("tiny-llama31".into());
    let fusion = std::env::var("FUSION").unwrap_or("all".into()).parse().unwrap();
    let (g, _) = support::model(&name);
    let (out, fin) = support::optimized(&g, &support::fusing(fusion));
    println!("{}", llamac_ir::print(&out));
    for r in &fin.ran {
        println!("{} {}->{} {:?}: {}", r.name, r.before, r.after, r.time, r.report);
    }
    println!("{}", fin.ledger);
}
