//! The flags of `invoke` and `chain`: what to call, with what, for how long. `jobs submit` takes most of them too.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use wess_schemas::chain::{ChainRequest, ChainStep};
use wess_schemas::reference::FunctionName;
use wess_schemas::{Invocation, Limits, Reference};

use super::Remote;

/// Limits, as flags.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct CallLimits {
    /// Longest run, e.g. 500ms, 5s or 1m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Most linear memory, in MiB.
    #[arg(long, value_name = "MIB")]
    pub memory_mb: Option<u64>,
    /// Instruction budget.
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,
    /// Most bytes of output.
    #[arg(long, value_name = "N")]
    pub output_bytes: Option<u64>,
}

impl CallLimits {
    /// As they travel.
    pub fn limits(self) -> Limits {
        Limits {
            timeout_ms: self.timeout.map(millis),
            memory_mb: self.memory_mb,
            fuel: self.fuel,
            output_bytes: self.output_bytes,
        }
    }
}

/// `wess invoke`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess invoke upper hello
  echo hello | wess invoke upper@stable -
  wess invoke math --function divmod --args '[17,5]'
  wess invoke math.divmod '[17,5]' -o json
  wess invoke cat --arg=-e --arg LANG --env LANG=C
  wess invoke resize --file photo.jpg --timeout 20s > small.jpg
Prints the output's own bytes; -o json prints the whole outcome.
A guest that ends with an exit code other than 0 makes this command end with 1.")]
pub struct InvokeArgs {
    /// The module, as NAME, NAME@VERSION, NAME@TAG, sha256:HEX or its id; a function may follow after a dot.
    #[arg(value_name = "REF")]
    pub step: Step,
    /// The input as text, or - for stdin.
    pub input: Option<String>,
    /// Read the input from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub file: Option<String>,
    #[command(flatten)]
    pub call: CallArgs,
    /// Longest wait for a free slot, e.g. 10s.
    #[arg(id = "slot_wait", long = "wait", value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    #[command(flatten)]
    pub limits: CallLimits,
    #[command(flatten)]
    pub remote: Remote,
}

impl InvokeArgs {
    /// Everything but the input.
    pub fn invocation(&self) -> Invocation {
        Invocation {
            wait_ms: self.wait.map(millis),
            limits: self.limits.limits(),
            ..self.call.invocation(&self.step)
        }
    }
}

/// What a guest is given beside its input.
#[derive(Debug, Clone, Args)]
pub struct CallArgs {
    /// Which exported function.
    #[arg(long, value_name = "NAME")]
    pub function: Option<FunctionName>,
    /// Typed arguments as a JSON array.
    #[arg(long, value_name = "JSON", value_parser = json_array)]
    pub args: Option<JsonArray>,
    /// One argument for a command; repeat it for more.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "args",
        allow_hyphen_values = true
    )]
    pub arg: Vec<String>,
    /// A variable that the guest sees; repeat it for more.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
}

impl CallArgs {
    /// A call of a module with it, without limits of its own.
    pub fn invocation(&self, step: &Step) -> Invocation {
        let texts = || self.arg.iter().cloned().map(Value::from).collect::<Vec<_>>();
        Invocation {
            function: self.function.clone().or_else(|| step.function.clone()),
            args: self
                .args
                .clone()
                .map(|args| args.0)
                .or_else(|| (!self.arg.is_empty()).then(texts)),
            env: self.env.iter().cloned().collect::<BTreeMap<_, _>>(),
            ..Invocation::of(step.module.clone())
        }
    }
}

/// `wess chain`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess chain upper wordcount --input 'hello sea'
  wess chain parse@2 text.normalize render --file page.html > out
  cat big.json | wess chain parse summarize --input - -o json
At most 10 steps. A step that fails ends the chain; the error says which it was.")]
pub struct ChainArgs {
    /// The modules in order; a function may follow each after a dot.
    #[arg(value_name = "REF", required = true)]
    pub steps: Vec<Step>,
    /// The first step's input as text, or - for stdin.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub input: Option<String>,
    /// Read the input from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub file: Option<String>,
    /// Longest wait for each slot, e.g. 10s.
    #[arg(id = "slot_wait", long = "wait", value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    #[command(flatten)]
    pub remote: Remote,
}

impl ChainArgs {
    /// Everything but the input.
    pub fn request(&self) -> ChainRequest {
        ChainRequest {
            steps: self.steps.iter().cloned().map(ChainStep::from).collect(),
            input: None,
            input_base64: None,
            input_ref: None,
            wait_ms: self.wait.map(millis),
        }
    }
}

/// A module and, after a dot, one of its functions, as in subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which module.
    pub module: Reference,
    /// Which function, when one was named.
    pub function: Option<FunctionName>,
}

impl FromStr for Step {
    type Err = wess_schemas::id::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (module, function) = text
            .split_once('.')
            .map_or((text, None), |(module, rest)| (module, Some(rest)));
        Ok(Self {
            module: module.parse()?,
            function: function.map(str::parse).transpose()?,
        })
    }
}

impl From<Step> for ChainStep {
    fn from(step: Step) -> Self {
        match step.function {
            None => Self::Module(step.module),
            function => Self::Invocation(Box::new(Invocation {
                function,
                ..Invocation::of(step.module)
            })),
        }
    }
}

/// Arguments that were written as one JSON array.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonArray(pub Vec<Value>);

fn json_array(text: &str) -> Result<JsonArray, String> {
    serde_json::from_str(text)
        .map(JsonArray)
        .map_err(|error| format!("not a JSON array: {error}"))
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

/// A whole number and its unit: `500ms`, `5s`, `1m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a whole number with its unit: 500ms, 5s, 1m or 2h";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u32 = digits.parse().map_err(|_| EXPECTED)?;
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(EXPECTED),
    };
    Ok(unit * number)
}

/// A time as it travels.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use serde_json::json;

    fn invoke(line: &[&str]) -> Result<Invocation, clap::Error> {
        let cli = Cli::try_parse_from(["wess", "invoke"].iter().chain(line))?;
        let Command::Invoke(args) = cli.command else {
            panic!()
        };
        Ok(args.invocation())
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("720h"), Ok(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(
            duration("4294967295m"),
            Ok(Duration::from_secs(60 * 4_294_967_295))
        );
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5.5s",
            "5d",
            "99999999999s",
            "5µs",
            "ä",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_function_may_follow_its_module() {
        let step: Step = "math@2.ns:a/b@1.0.0#run".parse().unwrap();
        assert_eq!(
            (step.module.to_string(), step.function.unwrap().to_string()),
            ("math@2".into(), "ns:a/b@1.0.0#run".into())
        );
        assert!("math.".parse::<Step>().is_err());
        assert_eq!(
            serde_json::to_value(ChainStep::from("upper".parse::<Step>().unwrap())).unwrap(),
            json!("upper")
        );
        let step = ChainStep::from("math.add".parse::<Step>().unwrap());
        assert_eq!(
            serde_json::to_value(step).unwrap(),
            json!({"module": "math", "function": "add"})
        );
    }

    #[test]
    fn flags_become_the_fields_of_an_invocation() {
        let line = [
            "cat",
            "--arg=-e",
            "--arg",
            "LANG",
            "--env",
            "LANG=C=x",
            "--wait",
            "1s",
            "--timeout",
            "2s",
            "--fuel",
            "3",
        ];
        let expected = json!({"module": "cat", "args": ["-e", "LANG"], "env": {"LANG": "C=x"}, "wait_ms": 1000,
            "limits": {"timeout_ms": 2000, "fuel": 3}});
        assert_eq!(serde_json::to_value(invoke(&line).unwrap()).unwrap(), expected);
        let typed = invoke(&["math", "--function", "divmod", "--args", "[17,\"5\"]"]).unwrap();
        let expected = json!({"module": "math", "function": "divmod", "args": [17, "5"]});
        assert_eq!(serde_json::to_value(typed).unwrap(), expected);
    }

    #[test]
    fn flags_that_exclude_each_other_or_do_not_parse_are_refused() {
        for line in [
            &["a", "x", "--file", "f"][..],
            &["a", "--args", "[1]", "--arg", "2"],
            &["a", "--args", "{}"],
            &["a", "--env", "X"],
            &["a", "--wait", "1"],
        ] {
            assert!(invoke(line).is_err(), "{line:?}");
        }
    }
}
