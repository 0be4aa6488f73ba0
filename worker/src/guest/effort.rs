//! How long a function will take to compile, estimated from its instructions before a compiler sees it.
//!
//! Invariant: what grows faster than a function's length is counted here, so that no small module keeps the compiler
//! busy for minutes or takes gigabytes. The factors were measured with Cranelift; real programs stay far below.

use std::time::Duration;

use wasmparser::{BinaryReaderError, BlockType, FuncType, FunctionBody, Operator};

/// Nanoseconds for each meeting of control flow, with each other one, for each local that lives across them.
const JOIN_NS: f64 = 0.4;
/// Values that live across every join without being a guest's local.
const HIDDEN_LOCALS: u64 = 7;
/// A loop's head is also where a guest is interrupted: it counts for so many joins.
const JOINS_PER_LOOP: u64 = 4;
/// Nanoseconds for each branch, for each local.
const BRANCH_NS: f64 = 45.0;
/// Nanoseconds for each local that a loop touches, with each other one.
const LOOP_LOCAL_NS: f64 = 1.2;
/// Nanoseconds for each call into our own code, with each other one.
const LIBCALL_NS: f64 = 15.0;
/// Nanoseconds for each value that a block takes or leaves, for each block that does.
const BLOCK_VALUE_NS: f64 = 6.0;
/// Nanoseconds for each value that a call takes or leaves.
const CALL_VALUE_NS: f64 = 5_000.0;

/// The signatures that a module's functions name.
pub(super) struct Signatures<'a> {
    /// By type index; `None` for what is no function's.
    pub types: &'a [Option<FuncType>],
    /// The type of each function, imported ones first.
    pub functions: &'a [u32],
}

impl Signatures<'_> {
    /// How many values a function of this type takes and leaves.
    fn arity(&self, ty: u32) -> u64 {
        let func = self.types.get(ty as usize).and_then(Option::as_ref);
        func.map_or(0, |func| (func.params().len() + func.results().len()) as u64)
    }

    fn arity_of_function(&self, index: u32) -> u64 {
        self.functions.get(index as usize).map_or(0, |ty| self.arity(*ty))
    }

    fn arity_of_block(&self, ty: BlockType) -> u64 {
        match ty {
            BlockType::Empty => 0,
            BlockType::Type(_) => 1,
            BlockType::FuncType(ty) => self.arity(ty),
        }
    }
}

/// Estimates what compiling this function takes beyond the time that its length explains.
pub(super) fn estimate(
    index: u32,
    body: &FunctionBody<'_>,
    signatures: &Signatures<'_>,
) -> Result<Duration, BinaryReaderError> {
    let mut counts = Counts {
        locals: signatures.arity_of_function(index) + HIDDEN_LOCALS,
        ..Counts::default()
    };
    for locals in body.get_locals_reader()? {
        counts.locals += u64::from(locals?.0);
    }
    let mut nesting = Vec::new();
    for operator in body.get_operators_reader()? {
        counts.take(&operator?, signatures, &mut nesting);
    }
    Ok(counts.estimate())
}

/// What was found in one function.
#[derive(Default)]
struct Counts {
    locals: u64,
    local_uses: u64,
    joins: u64,
    branches: u64,
    libcalls: u64,
    call_values: u64,
    blocks_with_values: u64,
    block_values: u64,
    /// The squares of how many locals each loop touches.
    loop_locals_squared: f64,
}

/// An open block; a loop remembers how many uses of locals came before it.
type Open = Option<u64>;

impl Counts {
    fn take(&mut self, operator: &Operator<'_>, signatures: &Signatures<'_>, nesting: &mut Vec<Open>) {
        match operator {
            Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => {
                self.local_uses += 1
            }
            Operator::Block { blockty } | Operator::If { blockty } => {
                nesting.push(None);
                self.open(1, signatures.arity_of_block(*blockty));
            }
            Operator::Loop { blockty } => {
                nesting.push(Some(self.local_uses));
                self.open(JOINS_PER_LOOP, signatures.arity_of_block(*blockty));
            }
            Operator::End => self.close(nesting.pop().flatten()),
            Operator::Br { .. } | Operator::BrIf { .. } => self.branches += 1,
            Operator::BrTable { targets } => self.branches += u64::from(targets.len()) + 1,
            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                self.call_values += signatures.arity_of_function(*function_index);
            }
            Operator::CallIndirect { type_index, .. } | Operator::ReturnCallIndirect { type_index, .. } => {
                self.libcalls += 1;
                self.call_values += signatures.arity(*type_index);
            }
            operator if is_libcall(operator) => self.libcalls += 1,
            _ => {}
        }
    }

    fn open(&mut self, joins: u64, values: u64) {
        self.joins += joins;
        self.block_values += values;
        self.blocks_with_values += u64::from(values > 0);
    }

    fn close(&mut self, open: Open) {
        let Some(uses_before) = open else { return };
        let touched = (self.local_uses - uses_before).min(self.locals) as f64;
        self.loop_locals_squared += touched * touched;
    }

    fn estimate(&self) -> Duration {
        let [locals, joins, branches, libcalls] =
            [self.locals, self.joins, self.branches, self.libcalls].map(|count| count as f64);
        let ns = JOIN_NS * joins * joins * locals
            + BRANCH_NS * branches * locals
            + LOOP_LOCAL_NS * self.loop_locals_squared
            + LIBCALL_NS * libcalls * libcalls
            + BLOCK_VALUE_NS * self.blocks_with_values as f64 * self.block_values as f64
            + CALL_VALUE_NS * self.call_values as f64;
        Duration::from_nanos(ns as u64)
    }
}

/// Whether an instruction is compiled to a call of Wasmtime's own code.
fn is_libcall(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryGrow { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. }
            | Operator::DataDrop { .. }
            | Operator::TableGet { .. }
            | Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::RefFunc { .. }
    )
}
