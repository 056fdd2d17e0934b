//! What a CEL rule may cost. The evaluator cannot be stopped, so the steps that a rule can take
//! on a value are bounded before: by how deep its loops are nested and how long the longest list
//! is. (Kubernetes counts while it evaluates; its limit of one rule is as large.) Parser and
//! evaluator call themselves for each part of a part, so that is bounded, too, and done where the
//! stack is large enough.

use std::thread;

use kube_cel::cel::{
    Program,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use serde_json::Value;

/// Steps of one rule on one value (apiserver `PerCallLimit`).
const STEPS_MAX: u64 = 1_000_000;

/// Items of a list that are copied in the time of a step.
const COPIED_IN_A_STEP: u64 = 64;

/// Functions that make a list of a string.
const SPLITTERS: [&str; 3] = ["split", "findAll", "chars"];

/// Parts of parts in one rule (the parser of Kubernetes has the same limit).
const DEPTH_MAX: usize = 250;

/// Operators of one rule, of any kind: how deep its parts can be nested at most, known before it is
/// parsed. The longest rules of well-known definitions have about 200.
const OPERATORS_MAX: usize = 500;

/// Stacks, reserved and not used unless needed: for the deepest rule in a build that is not
/// optimised.
const PARSE_STACK_BYTES: usize = 512 * 1024 * 1024;
const EVALUATE_STACK_BYTES: usize = 64 * 1024 * 1024;

/// Up to here a rule is evaluated where it is asked for: a thread's usual stack is enough.
const SHALLOW: usize = 12;

/// Parses rules; `None`: the parser gave up in an unorderly way.
pub(super) fn parsing<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    with_stack(PARSE_STACK_BYTES, work)
}

fn with_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

/// Why a rule is not even parsed.
pub(super) fn too_intricate(rule: &str) -> Option<String> {
    let mut operators = 0;
    let mut within = false;
    for letter in rule.chars() {
        let operator = "!-+*/%<>=&|?:.[({".contains(letter);
        // Brackets nest one by one; of others a row is one operator, such as `==`, or a few signs.
        operators += usize::from(operator && (!within || "[({!-".contains(letter)));
        within = operator;
    }
    (operators > OPERATORS_MAX)
        .then(|| format!("it has {operators} operators, more than {OPERATORS_MAX}"))
}

/// How the steps of a rule grow with its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Loops within loops.
    nesting: u32,
    /// A loop builds a list, and copies it in each step.
    builds: bool,
    /// Strings become lists.
    splits: bool,
    /// The longest list that the rule itself contains.
    literal: u64,
    /// Parts of parts.
    depth: usize,
}

impl Cost {
    pub(super) fn of(program: &Program) -> Cost {
        of(&program.expression().expr)
    }

    /// Why a rule that could be parsed is refused.
    pub(super) fn too_deep(&self) -> Option<String> {
        (self.depth > DEPTH_MAX).then(|| format!("it is nested deeper than {DEPTH_MAX} levels"))
    }

    /// Evaluates rules with a large enough stack; `None`: there is none.
    pub(super) fn evaluating<T: Send>(
        costs: &[Cost],
        work: impl FnOnce() -> T + Send,
    ) -> Option<T> {
        match costs.iter().all(|cost| cost.depth <= SHALLOW) {
            true => Some(work()),
            false => with_stack(EVALUATE_STACK_BYTES, work),
        }
    }

    /// Whether the rule may be evaluated on these values.
    pub(super) fn affordable(&self, value: &Value, old: Option<&Value>) -> bool {
        if self.nesting < 2 && !self.builds {
            return true;
        }
        let longest = longest(value, self.splits);
        let longest = old.map_or(0, |old| self::longest(old, self.splits)).max(longest);
        let longest = longest.max(self.literal);
        let copies = if self.builds { longest / COPIED_IN_A_STEP + 1 } else { 1 };
        longest.saturating_pow(self.nesting).saturating_mul(copies) <= STEPS_MAX
    }

    fn and(self, other: Cost) -> Cost {
        Cost {
            nesting: self.nesting.max(other.nesting),
            builds: self.builds || other.builds,
            splits: self.splits || other.splits,
            literal: self.literal.max(other.literal),
            depth: self.depth.max(other.depth),
        }
    }
}

fn of(expression: &Expr) -> Cost {
    let mut cost = of_parts(expression);
    cost.depth += 1;
    cost
}

fn of_parts(expression: &Expr) -> Cost {
    let all = |parts: &mut dyn Iterator<Item = &IdedExpr>| {
        parts.map(|part| of(&part.expr)).fold(Cost::default(), Cost::and)
    };
    match expression {
        Expr::Comprehension(looped) => {
            let mut within = all(&mut [&looped.loop_cond, &looped.loop_step].into_iter());
            within.nesting += 1;
            within.builds |= matches!(looped.accu_init.expr, Expr::List(_) | Expr::Map(_));
            let outside = [&looped.iter_range, &looped.accu_init, &looped.result];
            within.and(all(&mut outside.into_iter()))
        }
        Expr::Call(call) => {
            let target = call.target.iter().map(|target| &**target);
            let mut cost = all(&mut target.chain(&call.args));
            cost.splits |= SPLITTERS.contains(&call.func_name.as_str());
            cost
        }
        Expr::List(list) => {
            let literal = list.elements.len() as u64;
            all(&mut list.elements.iter()).and(Cost { literal, ..Cost::default() })
        }
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr)),
        Expr::Struct(object) => entries(object.entries.iter().map(|entry| &entry.expr)),
        Expr::Select(select) => of(&select.operand.expr),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Cost::default(),
    }
}

fn entries<'e>(all: impl Iterator<Item = &'e EntryExpr>) -> Cost {
    let cost = |entry: &EntryExpr| match entry {
        EntryExpr::MapEntry(entry) => of(&entry.key.expr).and(of(&entry.value.expr)),
        EntryExpr::StructField(field) => of(&field.value.expr),
    };
    all.map(cost).fold(Cost::default(), Cost::and)
}

/// The most items of a list or map within a value, or letters of a string.
fn longest(value: &Value, strings: bool) -> u64 {
    let own = match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::String(text) if strings => text.len(),
        _ => 0,
    } as u64;
    let within = match value {
        Value::Array(items) => items.iter().map(|item| longest(item, strings)).max(),
        Value::Object(fields) => fields.values().map(|field| longest(field, strings)).max(),
        _ => None,
    };
    own.max(within.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn affordable(rule: &str, items: usize) -> bool {
        let value = json!({"l": vec![1; items], "s": "x".repeat(items)});
        Cost::of(&Program::compile(rule).unwrap()).affordable(&value, None)
    }

    #[test]
    fn loops_within_loops_are_bounded() {
        assert!(affordable("self.l.all(x, x > 0)", 1_000_000), "one loop is as long as its list");
        let pairs = "self.l.all(x, self.l.exists_one(y, y == x))";
        assert!(affordable(pairs, 1_000) && !affordable(pairs, 1_001));
        let triples = "self.l.all(x, self.l.all(y, self.l.all(z, x + y > z)))";
        assert!(affordable(triples, 100) && !affordable(triples, 101));
        let one_after_the_other = "self.l.all(x, x > 0) && self.l.all(x, x < 9)";
        assert!(affordable(one_after_the_other, 1_000_000));
    }

    #[test]
    fn parts_of_parts_are_bounded() {
        let deep = ["(".repeat(501), "1 + ".repeat(501), "!".repeat(501), "a.b[0]".repeat(251)];
        for rule in deep {
            assert!(too_intricate(&rule).is_some(), "{rule}");
        }
        let usual = "has(self.a) && self.l.all(x, x.size() <= 3 || x != 'b') ? true : -1 > 2";
        assert_eq!(too_intricate(usual), None);
        let of = |rule: &str| {
            let cost = parsing(|| Program::compile(rule).ok().map(|program| Cost::of(&program)));
            cost.unwrap().unwrap()
        };
        assert!(of("1 + (2 + (3 + 4)) > 0").depth <= SHALLOW);
        assert!(of(&("1 + ".repeat(300) + "1 > 0")).too_deep().is_some());
        assert!(of(&("1 + ".repeat(200) + "1 > 0")).too_deep().is_none());
    }

    #[test]
    fn lists_that_are_built_are_copied() {
        assert!(affordable("self.l.map(x, x + 1).size() > 0", 5_000));
        assert!(!affordable("self.l.map(x, x + 1).size() > 0", 100_000));
        let split = "self.s.split('').all(x, self.s.split('').all(y, x == y))";
        assert!(affordable(split, 1_000) && !affordable(split, 10_000));
        let own = format!("{0}.all(x, {0}.all(y, x == y))", json!(vec![1; 1_001]));
        assert!(!affordable(&own, 1));
    }
}
