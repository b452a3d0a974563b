//! The text form, read.
//!
//! A recursive-descent parser over one token of lookahead. It types every instruction by the same rules as the builder, so
//! what it returns is well typed; the rules of whole graphs are the verifier's. Whatever the text, it returns: recursion is
//! bounded, and nothing is allocated that the text is not long enough to name.

mod error;
mod instruction;
mod leaf;
mod lexer;
mod places;

pub use error::ParseError;
pub use places::read;

use crate::infer::MAX_RANK;
use crate::{Dim, Graph, Inst, Layout, Op, Type, Value};
use lexer::{LexError, Lexer, Token, shorten};
use llamac_formats::{Bounds, DType, Sym};
use places::{Body, Places, Span};
use std::collections::HashMap;

/// The longest text that is read, in bytes.
const MAX_TEXT: usize = 256 << 20;
/// How deep regions may be nested. The verifier allows one level; a second is read so that it can say so.
const MAX_REGIONS: usize = 2;
/// How deep recipes may be nested.
const MAX_RECIPES: usize = 32;

/// Reads a graph.
///
/// # Errors
/// Syntax that is not understood, names that are not defined or defined twice, and broken typing rules, each with its place.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    Parser::read(text).map(|(graph, _)| graph)
}

type Result<T, E = ParseError> = std::result::Result<T, E>;

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next token.
    token: Token<'a>,
    /// Where it begins.
    start: usize,
    /// Where it ends.
    end: usize,
    bounds: Bounds,
    /// Where the instructions of the region read last stand, until the fusion is defined.
    region: Option<Body>,
}

/// The graph being read and what its values are called.
struct Scope<'a> {
    graph: Graph,
    names: HashMap<&'a str, Value>,
    places: Places,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Reads a graph and keeps where it stands.
    fn read(text: &'a str) -> Result<(Graph, Places)> {
        if text.len() > MAX_TEXT {
            let message = format!("the text has {} bytes, at most {MAX_TEXT} are read", text.len());
            return Err(ParseError::new(text, 0, 0, message));
        }
        let mut parser = Parser {
            lexer: Lexer::new(text),
            token: Token::End,
            start: 0,
            end: 0,
            bounds: Bounds { rows: 1, outputs: 1, tokens: 1, slots: 1 },
            region: None,
        };
        parser.advance()?;
        parser.graph()
    }

    fn error_at(&self, start: usize, end: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.lexer.text, start, end, message.into())
    }

    /// An error at the next token.
    fn error(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.start, self.end, message)
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        Err(self.error(format!("expected {what}, found {}", self.token)))
    }

    /// Takes the next token.
    fn advance(&mut self) -> Result<Token<'a>> {
        let next = self.lexer.next();
        let (token, start, end) =
            next.map_err(|LexError { start, end, message }| self.error_at(start, end, message))?;
        (self.start, self.end) = (start, end);
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn at(&self, c: char) -> bool {
        self.token == Token::Punct(c)
    }

    /// Takes the punctuation if it is next.
    fn eat(&mut self, c: char) -> Result<bool> {
        let found = self.at(c);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c)? { Ok(()) } else { self.expected(&format!("`{c}`")) }
    }

    fn ident(&mut self, what: &str) -> Result<&'a str> {
        let Token::Ident(word) = self.token else { return self.expected(what) };
        self.advance()?;
        Ok(word)
    }

    /// Takes the word if it is next.
    fn eat_word(&mut self, word: &str) -> Result<bool> {
        let found = self.token == Token::Ident(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn string(&mut self, what: &str) -> Result<String> {
        if !matches!(self.token, Token::Str(_)) {
            return self.expected(what);
        }
        match self.advance()? {
            Token::Str(s) => Ok(s),
            _ => self.expected(what),
        }
    }

    fn integer(&mut self, what: &str) -> Result<usize> {
        let Token::Number(text) = self.token else { return self.expected(what) };
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return self.expected(what);
        }
        let Ok(n) = text.parse() else {
            return Err(self.error(format!("the number {} is too large", shorten(text))));
        };
        self.advance()?;
        Ok(n)
    }

    /// `[0, 1, 2]`
    fn integers(&mut self, what: &str) -> Result<Vec<usize>> {
        self.expect('[')?;
        let mut list = vec![];
        while !self.at(']') {
            if list.len() == MAX_RANK {
                return Err(self.error(format!("expected `]`: no tensor has more than {MAX_RANK} axes")));
            }
            list.push(self.integer(what)?);
            if !self.eat(',')? {
                break;
            }
        }
        self.expect(']')?;
        Ok(list)
    }

    /// `f32[S, 64] panels`
    fn ty(&mut self) -> Result<Type> {
        const WHAT: &str = "a type `f32[…]`, `f16[…]`, `bf16[…]`, `i32[…]` or `bool[…]`";
        let Token::Ident(word) = self.token else { return self.expected(WHAT) };
        let Some(dtype) = DType::from_name(word) else { return self.expected(WHAT) };
        self.advance()?;
        self.expect('[')?;
        let mut dims = vec![];
        while !self.at(']') {
            if dims.len() == MAX_RANK {
                return Err(self.error(format!("expected `]`: no tensor has more than {MAX_RANK} axes")));
            }
            let sym = Sym::ALL.into_iter().find(|s| self.token == Token::Ident(&s.letter().to_string()));
            dims.push(match sym {
                Some(sym) => {
                    self.advance()?;
                    Dim::Sym(sym)
                }
                None => Dim::Const(self.integer("a dimension: a number, `S`, `R` or `T`")?),
            });
            if !self.eat(',')? {
                break;
            }
        }
        self.expect(']')?;
        let mut ty = Type::new(dtype, dims);
        if self.eat_word("panels")? {
            ty.layout = Layout::Panels;
        }
        Ok(ty)
    }

    fn graph(&mut self) -> Result<(Graph, Places)> {
        let header = self.start;
        if !self.eat_word("graph")? {
            return self.expected("`graph @name S<=… R<=… T<=… slots=… {`");
        }
        self.expect('@')?;
        let name = match self.token {
            Token::Str(_) => self.string("a name")?,
            _ => self.ident("the graph's name")?.to_owned(),
        };
        self.bounds = self.bounds_header()?;
        let places = Places { header: (header, self.start), ..Places::default() };
        self.expect('{')?;
        let mut scope = Scope { graph: Graph::new(name, self.bounds), names: HashMap::new(), places, depth: 0 };
        scope.places.results = self.instructions(&mut scope, "return")?;
        while matches!(self.token, Token::Str(_)) {
            let name = self.string("an output's name")?;
            self.expect('=')?;
            let value = self.operand(&scope)?;
            scope.graph.add_output(name, value);
            if !self.eat(',')? {
                break;
            }
            if !matches!(self.token, Token::Str(_)) {
                return self.expected("an output `\"name\" = %value`");
            }
        }
        self.expect('}')?;
        if self.token != Token::End {
            return self.expected("the end of the text");
        }
        Ok((scope.graph, scope.places))
    }

    /// `S<=512 R<=1 T<=2048 slots=1`, in any order.
    fn bounds_header(&mut self) -> Result<Bounds> {
        const NAMES: [&str; 4] = ["S", "R", "T", "slots"];
        let mut found = [None; 4];
        while let Token::Ident(word) = self.token {
            let Some(i) = NAMES.iter().position(|&n| n == word) else {
                return self.expected("a bound: `S<=`, `R<=`, `T<=` or `slots=`");
            };
            if found[i].is_some() {
                return Err(self.error(format!("the bound of `{word}` is given twice")));
            }
            self.advance()?;
            let sign_fits = if i == 3 { self.at('=') } else { self.token == Token::AtMost };
            if !sign_fits {
                return self.expected(if i == 3 { "`=`" } else { "`<=`" });
            }
            self.advance()?;
            found[i] = Some(self.integer("a bound")?);
        }
        let mut values = [0; 4];
        for i in 0..4 {
            let Some(v) = found[i] else {
                return self.expected(&format!("the bound of `{}`", NAMES[i]));
            };
            values[i] = v;
        }
        let [rows, outputs, tokens, slots] = values;
        Ok(Bounds { rows, outputs, tokens, slots })
    }

    /// Instructions up to the word that ends them, which is taken; where that stands.
    fn instructions(&mut self, scope: &mut Scope<'a>, last: &str) -> Result<Span> {
        loop {
            match self.token {
                Token::Value(_) => self.instruction(scope)?,
                Token::Ident(word) if word == last => {
                    let at = (self.start, self.end);
                    self.advance()?;
                    return Ok(at);
                }
                _ => return self.expected(&format!("an instruction `%name: type = op …` or `{last}`")),
            }
        }
    }

    /// A value that is defined.
    fn operand(&mut self, scope: &Scope<'a>) -> Result<Value> {
        let Token::Value(name) = self.token else { return self.expected("a value `%name`") };
        let Some(&value) = scope.names.get(name) else {
            return Err(self.error(format!("%{} is not defined before it is used", shorten(name))));
        };
        self.advance()?;
        Ok(value)
    }

    fn operands(&mut self, scope: &Scope<'a>) -> Result<Vec<Value>> {
        let mut list = vec![self.operand(scope)?];
        while self.eat(',')? {
            list.push(self.operand(scope)?);
        }
        Ok(list)
    }

    /// Appends an instruction and names its results. `at` is where its op stands.
    fn define(
        &mut self,
        scope: &mut Scope<'a>,
        results: Vec<ResultName<'a>>,
        (op, operands): (Op, Vec<Value>),
        at: Span,
        origin: String,
    ) -> Result<Inst> {
        let annotated: Vec<Type> = results.iter().filter_map(|r| r.ty.clone()).collect();
        let types: Vec<&Type> = operands.iter().map(|&v| scope.graph.ty(v)).collect();
        let inferred = crate::infer::infer(&op, &types, &annotated, &self.bounds)
            .map_err(|e| self.error_at(at.0, at.1, e.to_string()))?;
        if inferred.len() != results.len() {
            let message =
                format!("`{}` makes {} values, found names for {}", op.mnemonic(), inferred.len(), results.len());
            return Err(self.error_at(at.0, at.1, message));
        }
        for (r, found) in results.iter().zip(&inferred) {
            if let Some(ty) = &r.ty
                && ty != found
            {
                let message = format!("`{}` makes {found} here, the type says {ty}", op.mnemonic());
                return Err(self.error_at(r.ty_at.0, r.ty_at.1, message));
            }
        }
        let inst = scope.graph.append(op, operands, inferred, origin);
        scope.places.body.ops.push(at);
        scope.places.body.names.extend(results.iter().map(|r| r.at));
        scope.places.regions.extend(self.region.take().map(|body| (inst, body)));
        for (r, &value) in results.iter().zip(scope.graph.results(inst)) {
            if scope.names.insert(r.name, value).is_some() {
                let message = format!("%{} is defined twice", shorten(r.name));
                return Err(self.error_at(r.at.0, r.at.1, message));
            }
        }
        Ok(inst)
    }
}

/// A result as it is written: its name, its type if there is one, and where both stand.
struct ResultName<'a> {
    name: &'a str,
    at: Span,
    ty: Option<Type>,
    ty_at: Span,
}
