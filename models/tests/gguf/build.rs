//! GGUF files written by hand, right or wrong on purpose.

/// A file in the making.
#[derive(Clone)]
pub struct File {
    /// Format version.
    pub version: u32,
    /// Keys as bytes: name, then type and value.
    pub keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries of tensors.
    pub tensors: Vec<Entry>,
    /// How many bytes lie after the header.
    pub data: usize,
    /// What offsets are multiples of.
    pub alignment: usize,
    /// The count of tensors, if it is not that of the entries.
    pub tensor_count: Option<u64>,
    /// The count of keys, likewise.
    pub key_count: Option<u64>,
}

/// A tensor's entry.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    /// As in the file: the elements of a row first.
    pub dims: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

pub fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

pub fn u32_value(n: u32) -> Vec<u8> {
    [4_u32.to_le_bytes(), n.to_le_bytes()].concat()
}

pub fn f32_value(x: f32) -> Vec<u8> {
    [6_u32.to_le_bytes(), x.to_le_bytes()].concat()
}

pub fn bool_value(b: u8) -> Vec<u8> {
    [&7_u32.to_le_bytes()[..], &[b]].concat()
}

pub fn text_value(s: &str) -> Vec<u8> {
    [&8_u32.to_le_bytes()[..], &text(s.as_bytes())].concat()
}

/// An array of that element type, that count and those bytes.
pub fn array(kind: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&9_u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), bytes].concat()
}

pub fn texts(list: &[&str]) -> Vec<u8> {
    let bytes: Vec<u8> = list.iter().flat_map(|s| text(s.as_bytes())).collect();
    array(8, list.len() as u64, &bytes)
}

impl File {
    /// A Llama of one layer, 8 wide, 2 heads, vocabulary 6: all weights zero.
    pub fn small() -> File {
        let mut file = File {
            version: 3,
            keys: vec![],
            tensors: vec![],
            data: 0,
            alignment: 32,
            tensor_count: None,
            key_count: None,
        };
        file.set("general.architecture", text_value("llama"));
        for (key, value) in [
            ("context_length", 32),
            ("embedding_length", 8),
            ("block_count", 1),
            ("feed_forward_length", 12),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            file.set(&format!("llama.{key}"), u32_value(value));
        }
        file.set("llama.attention.layer_norm_rms_epsilon", f32_value(1e-5));
        for (name, dims) in [
            ("token_embd.weight", vec![8, 6]),
            ("output_norm.weight", vec![8]),
            ("blk.0.attn_norm.weight", vec![8]),
            ("blk.0.attn_q.weight", vec![8, 8]),
            ("blk.0.attn_k.weight", vec![8, 4]),
            ("blk.0.attn_v.weight", vec![8, 4]),
            ("blk.0.attn_output.weight", vec![8, 8]),
            ("blk.0.ffn_norm.weight", vec![8]),
            ("blk.0.ffn_gate.weight", vec![8, 12]),
            ("blk.0.ffn_up.weight", vec![8, 12]),
            ("blk.0.ffn_down.weight", vec![12, 8]),
        ] {
            file.tensor(name, &dims, 0, 4 * dims.iter().product::<u64>() as usize);
        }
        file
    }

    /// The same with a vocabulary of bytes.
    pub fn with_vocabulary() -> File {
        let mut file = File::small();
        file.set("tokenizer.ggml.model", text_value("gpt2"));
        file.set("tokenizer.ggml.pre", text_value("llama-bpe"));
        file.set("tokenizer.ggml.tokens", texts(&["a", "b", "c", "ab", "abc", "<|end|>"]));
        let types: Vec<u8> = [1_i32, 1, 1, 1, 1, 3].iter().flat_map(|t| t.to_le_bytes()).collect();
        file.set("tokenizer.ggml.token_type", array(5, 6, &types));
        file.set("tokenizer.ggml.merges", texts(&["a b", "ab c"]));
        file.set("tokenizer.ggml.eos_token_id", u32_value(5));
        file
    }

    /// Gives a key a value, in the place of the one that it had.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.keys.iter_mut().find(|(k, _)| k == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.into(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.keys.retain(|(k, _)| k != key.as_bytes());
    }

    /// Adds a tensor after those that are there.
    pub fn tensor(&mut self, name: &str, dims: &[u64], kind: u32, bytes: usize) {
        let offset = self.data.next_multiple_of(self.alignment);
        self.tensors.push(Entry { name: name.into(), dims: dims.into(), kind, offset: offset as u64 });
        self.data = offset + bytes;
    }

    pub fn entry(&mut self, name: &str) -> &mut Entry {
        self.tensors.iter_mut().find(|t| t.name == name.as_bytes()).expect("such a tensor")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(text(key));
            out.extend(value);
        }
        for t in &self.tensors {
            out.extend(text(&t.name));
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment) + self.data, 0);
        out
    }
}
