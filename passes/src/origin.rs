//! Names of things made from several: where they came from, together.

/// `layers.3.attn.q`, `layers.3.attn.k` → `layers.3.attn.q+k`. Empty origins and repetitions do not count; of more than three
/// different ends the first and the last are named.
pub fn join<'a>(origins: impl IntoIterator<Item = &'a str>) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for origin in origins {
        if !origin.is_empty() && !distinct.contains(&origin) {
            distinct.push(origin);
        }
    }
    let Some((first, rest)) = distinct.split_first() else { return String::new() };
    if rest.is_empty() {
        return (*first).to_string();
    }
    let parts: Vec<Vec<&str>> = distinct.iter().map(|o| o.split('.').collect()).collect();
    let shortest = parts.iter().map(Vec::len).min().unwrap_or(0);
    // At least one component of each stays, so that every one has a name.
    let common = (0..shortest.saturating_sub(1)).take_while(|&i| parts.iter().all(|p| p[i] == parts[0][i])).count();
    let mut ends: Vec<String> = parts.iter().map(|p| p[common..].join(".")).collect();
    if ends.len() > 3 {
        ends = vec![ends[0].clone(), "…".to_string(), ends[ends.len() - 1].clone()];
    }
    let ends = ends.join("+");
    if common == 0 { ends } else { format!("{}.{ends}", parts[0][..common].join(".")) }
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn names_what_differs() {
        assert_eq!(join(["layers.3.attn.q", "layers.3.attn.k", "", "layers.3.attn.q"]), "layers.3.attn.q+k");
        assert_eq!(join(["layers.3.attn.residual", "layers.3.mlp.norm"]), "layers.3.attn.residual+mlp.norm");
        assert_eq!(join(["embed", "layers.0.attn.norm"]), "embed+layers.0.attn.norm");
        assert_eq!(join(["a", "b", "c", "d"]), "a+…+d");
        assert_eq!(join(["a"]), "a");
        assert_eq!(join([""]), "");
    }
}
