using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Cuda;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Planning;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Cli.Commands;

/// <summary>
/// headroom plan: every buffer category with its size, phases and one total, before anything is loaded.
/// </summary>
internal static class PlanCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A recipe (.yaml): exactly what train will reserve for each of its models (of a model on the hub only "
                    + "configuration, tokenizer and the headers of the weights "
                + "are downloaded). Or a Hugging Face folder, config.json, .gguf file (in its own types) or hub name "
                + "(only its config.json is downloaded) with the sizes below. "
                + "Example: headroom plan recipes/reviews.yaml; headroom plan models/llama-tiny/config.json --rows 4 "
                + "--length 512 --vram 6GiB",
        };
        var set = new Option<string[]>("--set")
        {
            Description = "With a recipe: override a key. Repeatable.",
            DefaultValueFactory = _ => [],
        };
        var device = new Option<string?>("--device") { Description = "With a recipe: auto, cpu or cuda." };
        var rows = CommonOptions.With(
            "--rows", new TrainingOptions().PerDeviceTrainBatchSize, "per_device_train_batch_size");
        var length = CommonOptions.With("--length", new TaskOptions().MaxSeqLength, "max_seq_length");
        var r = CommonOptions.With("--r", new LoraConfig().R, "LoRA rank");
        var vram = new Option<string?>("--vram")
        {
            Description = "Budget, such as 6GiB: as little recompute as fits is chosen.",
        };
        var buffers = new Option<bool>("--buffers") { Description = "List every buffer with its offset and life." };
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command("plan", "Print the memory that training will take, row by row.")
        {
            model, set, device, rows, length, r, vram, buffers, json,
        };
        command.SetAction(p =>
        {
            if (IsRecipe(p.GetValue(model)!))
            {
                CommandLine.Refuse(p, "A recipe, which has its own sizes (--set changes them),", rows, length, r);
                return OfRecipe(
                    p.GetValue(model)!, p.GetValue(set)!, p.GetValue(device), p.GetValue(vram), p.GetValue(buffers),
                    p.GetValue(json));
            }
            CommandLine.Refuse(p, "A model without a recipe, which is planned for the CPU,", set, device);
            return Run(
                p.GetValue(model)!, p.GetValue(rows), p.GetValue(length), p.GetValue(r), p.GetValue(vram),
                p.GetValue(buffers), p.GetValue(json));
        });
        return command;
    }

    private static int Run(string path, int rows, int length, int r, string? vram, bool buffers, bool json)
    {
        if (rows < 1 || length < 2 || r < 1)
            throw new HeadroomException(
                "--rows and --r must be at least 1, --length at least 2.", "Give positive sizes.");
        PreparedRun.BatchTokens(rows, length, "--rows or --length");
        using var session = new Session(json);
        var config = ModelPaths.Config(path, session);
        using var waiting = session.Waiting(); // planning changes nothing
        config.CheckRank(r, "--r is");
        config.CheckLength(length);
        var settings = new ModelSettings(
            config.Quantized ?? WeightStorage.NF4Double,
            WeightStorage.BF16,
            TrainMode.Adapters,
            new LoraConfig { R = r });
        if (ModelPaths.BlockTypes(path) is { } types) // a GGUF file keeps its own types
            settings = settings with
            {
                LinearStorage = WeightStorage.Gguf,
                EmbeddingStorage = WeightStorage.Gguf,
                BlockTypes = types,
            };
        var limits = new BatchLimits(rows * length, rows, rows * (length - 1), rows * length, rows);
        using var cpu = new CpuDevice(); // that it is planned for
        var planned = Budget.Fit(
            config, settings, limits, cpu.WorkspaceBytes, vram == null ? null : Units.Parse(vram), cpu, flags: true);
        var (plan, fitted) = (planned.Plan, planned.Settings);
        string? beyond = PlanTable.BeyondPositions($"--length is {length}", length, config);
        // The CPU has one kernel for every head size; whoever plans thinks of a card too.
        string? slower = FlashKernels.Fallback(config.HeadDim, DType.BF16, ANewCard) is { } why
            ? "on a GPU, " + why
            : null;
        string[] notes = [.. new[] { beyond, slower }.OfType<string>()];
        if (json)
        {
            foreach (string note in notes) session.Say("note: " + note);
            Console.WriteLine(
                JsonSerializer.Serialize(
                    Json(plan, new Subject(null, "cpu", fitted, rows, length, config), buffers, notes))
            );
            return 0;
        }
        Console.WriteLine(PlanTable.Subject("the CPU", fitted, $"{rows} rows x {length} tokens", config.NumHiddenLayers)
            + "; a GPU takes other bytes (a recipe with --device cuda is planned for one)");
        foreach (string note in notes) Console.WriteLine("note: " + note);
        Print(plan, fitted.RecomputeLayers, config.NumHiddenLayers, buffers);
        return 0;
    }

    private const int ANewCard = 90; // compute capability

    private static bool IsRecipe(string path) =>
        path.EndsWith(".yaml", StringComparison.OrdinalIgnoreCase)
        || path.EndsWith(".yml", StringComparison.OrdinalIgnoreCase);

    private static int OfRecipe(string path, string[] sets, string? deviceName, string? vram, bool buffers, bool json)
    {
        var (recipe, _) = Recipes.Load(path, sets, deviceName, vram, null);
        if (recipe.Models.Count == 0)
            throw new HeadroomException("The recipe names no model.", "Add models: with a - path: entry.");
        using var session = new Session(json);
        var outlines = Directory.CreateTempSubdirectory("headroom-plan-");
        session.BeforeLeaving(() => outlines.Delete(true));
        var all = new List<object>();
        try
        {
            Recipes.Fetch(recipe, session, outlines.FullName);
            using var waiting = session.Waiting(() => outlines.Delete(true)); // planning changes nothing
            foreach (var model in recipe.Models)
            {
                using var prepared = PreparedRun.Prepare(
                    recipe, model, () => session.Open(recipe.Device.Word(), recipe.Training.CudaGraphs),
                    recipe.Vram == null ? null : Units.Parse(recipe.Vram), session.Progress);
                using var device = prepared.Device;
                var (limits, config) = (prepared.Limits, prepared.Source.Config);
                var notes = prepared.Notes;
                var subject = new Subject(
                    TrainRun.ModelName(model), device.Name, prepared.Settings, limits.TrainSequences, prepared.Longest,
                    config);
                all.Add(Json(prepared.Plan, subject, buffers, notes));
                if (json)
                {
                    foreach (string note in notes) session.Say("note: " + note);
                    continue;
                }
                string batch = $"micro-batches of at most {limits.TrainSequences} rows and {limits.TrainTokens} tokens";
                session.Say(
                    $"{TrainRun.ModelName(model)}, "
                        + $"{PlanTable.Subject(device.Name, prepared.Settings, batch, config.NumHiddenLayers)}"
                );
                foreach (string note in notes) session.Say("note: " + note);
                Print(
                    prepared.Plan, prepared.Settings.RecomputeLayers, prepared.Source.Config.NumHiddenLayers, buffers);
            }
        }
        finally
        {
            outlines.Delete(true);
        }
        if (json) Console.WriteLine(JsonSerializer.Serialize(all));
        return 0;
    }

    /// <summary>
    /// What a plan is for: a name, or null for a model without a recipe; the largest micro-batch has
    /// <paramref name="Rows"/> rows of <paramref name="Length"/> tokens at most.
    /// </summary>
    private sealed record Subject(
        string? Model, string Device, ModelSettings Settings, int Rows, int Length, ModelConfig Config);

    private static object Json(MemoryPlan plan, Subject s, bool buffers, IReadOnlyList<string> notes) => new
    {
        model = s.Model,
        device = s.Device,
        precision = PlanTable.PrecisionName(s.Settings.ComputeType),
        batch_rows = s.Rows,
        length = s.Length,
        max_position_embeddings = s.Config.MaxPositionEmbeddings,
        total_bytes = plan.TotalBytes,
        arena_bytes = plan.ArenaBytes,
        static_bytes = plan.StaticBytes,
        workspace_bytes = plan.WorkspaceBytes,
        peak_phase = plan.PeakPhase,
        recompute_layers = s.Settings.RecomputeLayers,
        layers = s.Config.NumHiddenLayers,
        phases = plan.Phases.ToDictionary(p => p, plan.PhaseBytes),
        rows = plan.Rows()
                .Select(x => new
                {
                    phase = x.Phase,
                    category = x.Category.ToString(),
                    buffers = x.Buffers,
                    bytes = x.Bytes,
                }),
        buffers = buffers
                ? plan.Buffers.Select(b => new
                {
                    b.Phase,
                    category = b.Category.ToString(),
                    b.Name,
                    shape = b.Shape.ToString(),
                    dtype = b.DType.ToString(),
                    b.Bytes,
                    b.Offset,
                    b.Birth,
                    b.Death,
                })
                : null,
        notes,
    };

    private static void Print(MemoryPlan plan, int recompute, int layers, bool buffers)
    {
        Console.WriteLine(PlanTable.Text(plan, recompute, layers));
        if (!buffers) return;
        foreach (var b in plan.Buffers)
            Console.WriteLine(
                $"  {b.Phase,-9} {b.Offset,14:N0} {b.Bytes,13:N0}  {b.Category,-16} {b.Name} {b.DType} {b.Shape}");
    }
}
