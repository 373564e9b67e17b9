using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Models;
using Headroom.Planning;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>headroom plan: every buffer category with its size, phases and one total, before anything is loaded.</summary>
internal static class PlanCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("model") { Description = "A Hugging Face folder, config.json or .gguf file. Example: headroom plan config.json --rows 4 --length 512 --vram 6GiB" };
        var rows = new Option<int>("--rows") { Description = "per_device_train_batch_size", DefaultValueFactory = _ => new TrainingOptions().PerDeviceTrainBatchSize };
        var length = new Option<int>("--length") { Description = "max_seq_length", DefaultValueFactory = _ => new TaskOptions().MaxSeqLength };
        var r = new Option<int>("--r") { Description = "LoRA rank", DefaultValueFactory = _ => new LoraOptions().R };
        var vram = new Option<string?>("--vram") { Description = "Budget, such as 6GiB: as little recompute as fits is chosen." };
        var buffers = new Option<bool>("--buffers") { Description = "List every buffer with its offset and life." };
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command("plan", "Print the memory that training will take, row by row.") { model, rows, length, r, vram, buffers, json };
        command.SetAction(p => Run(p.GetValue(model)!, p.GetValue(rows), p.GetValue(length), p.GetValue(r), p.GetValue(vram), p.GetValue(buffers), p.GetValue(json)));
        return command;
    }

    private static int Run(string path, int rows, int length, int r, string? vram, bool buffers, bool json)
    {
        if (rows < 1 || length < 2 || r < 1) throw new HeadroomException("--rows and --r must be at least 1, --length at least 2.", "Give positive sizes.");
        var config = ModelPaths.Config(path);
        var lora = new LoraOptions { R = r };
        var settings = new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters,
            new LoraSettings(r, lora.LoraAlpha, lora.LoraDropout, lora.TargetModules, lora.UseRslora));
        var limits = new BatchLimits(rows * length, rows, rows * (length - 1), rows * length, rows);
        long workspace = CpuOps.WorkspaceBytes(Environment.ProcessorCount);
        var (plan, recompute) = Budget.Fit(config, settings, limits, workspace, vram == null ? null : Units.Parse(vram));
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                total_bytes = plan.TotalBytes, arena_bytes = plan.ArenaBytes, static_bytes = plan.StaticBytes, workspace_bytes = plan.WorkspaceBytes,
                peak_phase = plan.PeakPhase, recompute_layers = recompute, phases = plan.Phases.ToDictionary(p => p, plan.PhaseBytes),
                rows = plan.Rows().Select(x => new { phase = x.Phase, category = x.Category.ToString(), buffers = x.Buffers, bytes = x.Bytes }),
                buffers = buffers ? plan.Buffers.Select(b => new { b.Phase, category = b.Category.ToString(), b.Name, shape = b.Shape.ToString(), dtype = b.DType.ToString(), b.Bytes, b.Offset, b.Birth, b.Death }) : null,
            }));
            return 0;
        }
        PlanTable.Print(plan, recompute, config.NumHiddenLayers);
        if (buffers)
            foreach (var b in plan.Buffers) Console.WriteLine($"  {b.Phase,-9} {b.Offset,14:N0} {b.Bytes,13:N0}  {b.Category,-16} {b.Name} {b.DType} {b.Shape}");
        return 0;
    }
}

/// <summary>The plan as a table of plain lines.</summary>
internal static class PlanTable
{
    public static void Print(MemoryPlan plan, int recompute, int layers)
    {
        Console.WriteLine($"{"phase",-10} {"row",-18} {"buffers",8} {"bytes",16}");
        foreach (var row in plan.Rows()) Console.WriteLine($"{row.Phase,-10} {row.Category,-18} {row.Buffers,8} {row.Bytes,16:N0}  {Units.Bytes(row.Bytes)}");
        foreach (string phase in plan.Phases) Console.WriteLine($"phase {phase}: {Units.Bytes(plan.PhaseBytes(phase))} beyond {Units.Bytes(plan.StaticBytes)} static{(phase == plan.PeakPhase ? "  <- peak" : "")}");
        Console.WriteLine($"recompute: {recompute} of {layers} layers");
        Console.WriteLine($"total: {plan.TotalBytes:N0} bytes ({Units.Bytes(plan.TotalBytes)}), the .NET runtime not counted");
    }
}
