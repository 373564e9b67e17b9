using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference.Bases;
using Headroom.Training.Measure;
using Headroom.Training.Runs;

namespace Headroom.Cli.Commands;

/// <summary>headroom bench step: whole training steps with random weights.</summary>
internal sealed class BenchStepCommand
{
    private const int MostSteps = 100_000; // each has its time kept, and its batch made before where they are ragged

    private readonly Argument<string> _model = new("model")
    {
        Description =
            "A config.json, or a model's folder or file (only its configuration is read). Example: headroom bench "
                + "step models/llama-tiny/config.json --rows 4 --length 128",
    };
    private readonly Option<int> _rows = CommonOptions.With("--rows", 4, "Sequences of a micro-batch.");
    private readonly Option<int> _length = CommonOptions.With("--length", 512, "Tokens of a sequence.");
    private readonly Option<int> _recompute = CommonOptions.With(
        "--recompute", 0, "Layers that recompute; -1 = all.");
    private readonly Option<int> _steps = CommonOptions.With("--steps", 5, "Timed steps.");
    private readonly Option<int> _rank = CommonOptions.With("--r", 16, "LoRA rank, on all seven projections.");
    private readonly Option<float> _dropout = CommonOptions.With("--dropout", 0.1f, "lora_dropout.");
    private readonly Option<string> _dtype = CommonOptions.With("--dtype", "auto", "auto, fp32, bf16 or fp16.");
    private readonly Option<string> _device = CommonOptions.With("--device", "auto", "auto, cpu or cuda.");
    private readonly Option<bool> _answers = CommonOptions.Make<bool>(
        "--answer-only", "Label only the last token of each sequence.");
    private readonly Option<bool> _ragged = CommonOptions.Make<bool>(
        "--ragged",
        "Every step a new batch of sequences as long as film reviews are (lognormal around 225 tokens), at most "
            + "--length.");
    private readonly Option<bool?> _graphs = CommonOptions.Make<bool?>(
        "--graphs",
        "On a GPU, true or false: replay micro-steps as CUDA graphs; default: where launching them takes longer than "
            + "they do.");
    private readonly Option<string> _expanded = CommonOptions.With(
        "--expanded", "none", "On a GPU, memory in which weights stay expanded, such as 4GiB.");
    private readonly Option<bool> _json = CommonOptions.Json();

    public Command Create()
    {
        var step = new Command(
            "step",
            "Time whole QLoRA steps (NF4, double quantization) with random weights and tokens: tokens/s, planned and "
                + "measured bytes, time per op against its floor."
        )
        {
            _model, _rows, _length, _recompute, _steps, _rank, _dropout, _dtype, _device, _answers, _ragged, _graphs,
            _expanded, _json,
        };
        step.SetAction(Run);
        return step;
    }

    private int Run(ParseResult p)
    {
        using var session = new Session(p.GetValue(_json));
        CheckSizes(p);
        long expandedBytes = p.GetValue(_expanded) is var size and not "none" ? Units.Parse(size!) : 0;
        var config = BenchCommand.ReadConfig(p.GetValue(_model)!);
        int rows = p.GetValue(_rows), length = p.GetValue(_length), layers = p.GetValue(_recompute);
        if (layers < -1 || layers > config.NumHiddenLayers)
            throw new HeadroomException(
                $"--recompute is {layers}, the model has {config.NumHiddenLayers} layers.",
                $"Give 0 to {config.NumHiddenLayers}, or -1 for all.");
        config.CheckRank(p.GetValue(_rank), "--r is");
        const string smaller = "Give fewer --rows, a smaller --length or --r, or more layers to --recompute.";
        return BenchCommand.Run(smaller, () =>
        {
            var device = session.Open(p.GetValue(_device)!, p.GetValue(_graphs));
            try
            {
                if (device is CpuDevice) CommandLine.Refuse(p, "The CPU", _graphs, _expanded);
                var precision = Choices.Parse<Precision>("--dtype", p.GetValue(_dtype)!);
                var compute = BaseSettings.ComputeType(precision, device, "--dtype");
                var options = new StepBenchmarkOptions(
                    rows, length, layers, compute, p.GetValue(_steps), p.GetValue(_rank), p.GetValue(_dropout),
                    AnswerOnly: p.GetValue(_answers), Ragged: p.GetValue(_ragged))
                {
                    ExpandedBytes = expandedBytes,
                };
                var result = StepBenchmark.Run(device, config, options, session.Say, stop: session.Token);
                if ((device as IReplaysSteps)?.Notice is { } notice) session.Say(notice);
                Print(result, device.Name, rows, length, p.GetValue(_ragged), p.GetValue(_json));
            }
            catch
            {
                device.Dispose();
                throw;
            }
        });
    }

    private void CheckSizes(ParseResult p)
    {
        int rows = p.GetValue(_rows), length = p.GetValue(_length), steps = p.GetValue(_steps);
        if (rows < 1 || length < 2 || steps < 1)
            throw new HeadroomException(
                $"--rows {rows} --length {length} --steps {steps} cannot be run.",
                "Give at least one row of two tokens and one step.");
        if (steps > MostSteps) throw new HeadroomException($"--steps is {steps}.", $"Give at most {MostSteps}.");
        PreparedRun.BatchTokens(rows, length, "--rows or --length");
        if (p.GetValue(_rank) < 1 || !(p.GetValue(_dropout) is >= 0 and <= Dropout.MaxP))
            throw new HeadroomException(
                "--r or --dropout cannot be run.",
                string.Create(
                    CultureInfo.InvariantCulture, $"Give a rank of at least 1 and a dropout from 0 to {Dropout.MaxP}.")
            );
        if (p.GetValue(_device) is not ("auto" or "cpu" or "cuda"))
            throw new HeadroomException($"--device {p.GetValue(_device)} is unknown.", "Use auto, cpu or cuda.");
    }

    private static void Print(StepBenchmarkResult x, string device, int rows, int length, bool ragged, bool json)
    {
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                device,
                rows,
                length,
                ragged,
                tokens_per_second = x.TokensPerSecond,
                step_ms = x.StepMilliseconds,
                tflops = x.Tflops,
                product_tflops = x.ProductTflops,
                utilisation = x.Utilisation,
                copy_tbs = x.CopyTbs,
                planned_bytes = x.PlannedBytes,
                process_bytes = x.Memory?.Process,
                device_used_bytes = x.Memory?.Used,
                loss = x.Loss,
                ops = x.Ops.Select(o => new
                {
                    op = o.Op,
                    calls = o.Calls,
                    ms = o.Milliseconds,
                    floor_ms = o.FloorMilliseconds,
                }),
            }));
            return;
        }
        FormattableString lines = $"""
            {device}, {rows} x {(ragged ? "up to " : "")}{length}: {x.TokensPerSecond:F0} tokens/s, {x.StepMilliseconds:F1} ms a step
            {x.Tflops:G3} of {x.ProductTflops:G3} TFLOP/s that a large product reaches here ({x.Utilisation * 100:F0} %); copies run at {x.CopyTbs:F2} TB/s
            planned {x.PlannedBytes / 1048576.0:F0} MiB, {(x.Memory is { Process: >= 0 } m ? string.Create(CultureInfo.InvariantCulture, $"process {m.Process / 1048576.0:F0} MiB") : "process not measured on this device")}
            """;
        Console.WriteLine(lines.ToString(CultureInfo.InvariantCulture));
        if (x.Ops.Count == 0) return;
        Console.WriteLine($"{"op",-24} {"calls",6} {"ms",10} {"floor ms",10}");
        foreach (var o in x.Ops)
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{o.Op,-24} {o.Calls,6} {o.Milliseconds,10:F2} "
                        + $"{(o.FloorMilliseconds > 0 ? o.FloorMilliseconds.ToString("F2", CultureInfo.InvariantCulture) : "-"),10}"
                )
            );
        Console.WriteLine("each op timed alone; the adapters of a group are timed with its products");
    }
}
