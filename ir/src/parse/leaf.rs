//! Instructions without operands: inputs, weights and their recipes, constants, states.

use super::lexer::Token;
use super::{MAX_RECIPES, Parser, Result};
use crate::{ConstKind, Op, Recipe, RopePart, Scalar, Type};
use llamac_formats::DType;
use llamac_formats::rope::{RopeScaling, RopeTable};

impl Parser<'_> {
    /// What follows the mnemonic of a leaf; nothing if `word` is none.
    pub(super) fn leaf(&mut self, word: &str, at: (usize, usize), ty: Option<&Type>) -> Result<Option<Op>> {
        Ok(Some(match word {
            "input" => {
                let name = self.string("the input's name, a string")?;
                let mut limit = None;
                if self.eat_word("limit")? {
                    self.expect('=')?;
                    limit = Some(self.integer("a limit")?);
                }
                Op::Input { name, limit }
            }
            "weight" => Op::Weight(self.recipe(0)?),
            "state" => Op::State { name: self.string("the state's name, a string")? },
            "param" => Op::Param { index: self.integer("the operand's number")? },
            "iota" => Op::Iota,
            "const" => Op::Const(self.constant(at, ty)?),
            _ => return Ok(None),
        }))
    }

    fn constant(&mut self, at: (usize, usize), ty: Option<&Type>) -> Result<ConstKind> {
        if self.eat_word("rope_cos")? {
            return Ok(ConstKind::Rope { table: self.rope_table()?, part: RopePart::Cos });
        }
        if self.eat_word("rope_sin")? {
            return Ok(ConstKind::Rope { table: self.rope_table()?, part: RopePart::Sin });
        }
        let scalar = match self.needs_type(ty, at)?.dtype {
            DType::F32 | DType::F16 | DType::BF16 => Scalar::Float(self.float()?),
            // No constant has a block type: the typing rules say so.
            DType::Q8 | DType::Block(_) => Scalar::Float(self.float()?),
            DType::I32 => Scalar::Int(self.int()?),
            DType::Bool => {
                let value = self.token == Token::Ident("true");
                if !value && self.token != Token::Ident("false") {
                    return self.expected("`true` or `false`");
                }
                self.advance()?;
                Scalar::Bool(value)
            }
        };
        Ok(ConstKind::Splat(scalar))
    }

    /// An f32: decimal, `inf`, `-inf`, `nan`, or its bits in hexadecimal.
    fn float(&mut self) -> Result<f32> {
        const WHAT: &str = "a number, `inf`, `-inf`, `nan`, `rope_cos` or `rope_sin`";
        let value = match self.token {
            Token::Ident("inf") | Token::Number("-inf") => {
                if self.token == Token::Ident("inf") {
                    f32::INFINITY
                } else {
                    f32::NEG_INFINITY
                }
            }
            Token::Ident("nan") => f32::NAN,
            Token::Number(text) if text.starts_with("0x") => {
                let bits = text.len() == 10 && text[2..].bytes().all(|b| b.is_ascii_hexdigit());
                match u32::from_str_radix(&text[2..], 16) {
                    Ok(v) if bits => f32::from_bits(v),
                    _ => return self.expected("the eight hexadecimal digits of an f32"),
                }
            }
            Token::Number(text) => match text.parse::<f32>() {
                Ok(v) if v.is_finite() => v,
                Ok(_) => return self.expected("a number within the range of f32"),
                Err(_) => return self.expected(WHAT),
            },
            _ => return self.expected(WHAT),
        };
        self.advance()?;
        Ok(value)
    }

    fn int(&mut self) -> Result<i32> {
        let value = match self.token {
            Token::Number(text) => text.parse().ok(),
            _ => None,
        };
        let Some(value) = value else { return self.expected("an i32") };
        self.advance()?;
        Ok(value)
    }

    /// `theta=500000 head_dim=32 scaling=llama3 factor=8 low=1 high=4 original=256`
    fn rope_table(&mut self) -> Result<RopeTable> {
        let theta = self.positive("theta")?;
        self.attribute_name("head_dim")?;
        let head_dim = self.integer("the width of a head")?;
        let mut scaling = RopeScaling::Default;
        if self.eat_word("scaling")? {
            self.expect('=')?;
            scaling = if self.eat_word("default")? {
                RopeScaling::Default
            } else if self.eat_word("linear")? {
                RopeScaling::Linear { factor: self.positive("factor")? }
            } else if self.eat_word("llama3")? {
                RopeScaling::Llama3 {
                    factor: self.positive("factor")?,
                    low_freq_factor: self.positive("low")?,
                    high_freq_factor: self.positive("high")?,
                    original_max_position_embeddings: self.positive("original")?,
                }
            } else if self.eat_word("factors")? {
                RopeScaling::Factors { factors: self.factors()? }
            } else {
                return self.expected("`default`, `linear`, `llama3` or `factors`");
            };
        }
        Ok(RopeTable { theta, head_dim, scaling })
    }

    /// `factors=[1, 1.5, 8]`, positive finite f32.
    fn factors(&mut self) -> Result<Vec<f32>> {
        self.attribute_name("factors")?;
        self.expect('[')?;
        let mut factors = vec![];
        while !self.eat(']')? {
            if !factors.is_empty() {
                self.expect(',')?;
            }
            let value = match self.token {
                Token::Number(text) => text.parse::<f32>().ok().filter(|v| v.is_finite() && *v > 0.0),
                _ => None,
            };
            let Some(value) = value else { return self.expected("a positive number") };
            self.advance()?;
            factors.push(value);
        }
        Ok(factors)
    }

    /// `name=` and a positive finite f64.
    fn positive(&mut self, name: &str) -> Result<f64> {
        self.attribute_name(name)?;
        let value = match self.token {
            Token::Number(text) => text.parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0),
            _ => None,
        };
        let Some(value) = value else { return self.expected("a positive number") };
        self.advance()?;
        Ok(value)
    }

    /// `"name"`, `permute_rows(R, heads=8)`, `concat(R, R)`, `interleave_panels(R, R)`, `convert(R)`
    fn recipe(&mut self, depth: usize) -> Result<Recipe> {
        const WHAT: &str =
            "a tensor's name (a string), `permute_rows(…)`, `concat(…)`, `interleave_panels(…)` or `convert(…)`";
        if depth == MAX_RECIPES {
            return self.expected(&format!("no more than {MAX_RECIPES} levels of recipes"));
        }
        if matches!(self.token, Token::Str(_)) {
            return Ok(Recipe::Tensor(self.string(WHAT)?));
        }
        let Token::Ident(word @ ("permute_rows" | "concat" | "interleave_panels" | "convert")) = self.token else {
            return self.expected(WHAT);
        };
        self.advance()?;
        self.expect('(')?;
        let recipe = match word {
            "permute_rows" => {
                let of = Box::new(self.recipe(depth + 1)?);
                self.expect(',')?;
                self.attribute_name("heads")?;
                Recipe::PermuteRows { of, heads: self.integer("a number of heads")? }
            }
            "convert" => Recipe::Convert(Box::new(self.recipe(depth + 1)?)),
            _ => {
                let mut parts = vec![self.recipe(depth + 1)?];
                while self.eat(',')? {
                    parts.push(self.recipe(depth + 1)?);
                }
                if word == "concat" { Recipe::Concat(parts) } else { Recipe::InterleavePanels(parts) }
            }
        };
        self.expect(')')?;
        Ok(recipe)
    }
}
