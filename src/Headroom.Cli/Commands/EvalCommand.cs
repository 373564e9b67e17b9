using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Tokenizers;
using Headroom.Models;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>headroom eval: a base, or a base with an adapter, on the test or validation rows of a recipe.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var recipe = new Argument<string>("recipe")
        {
            Description =
                "A YAML recipe with one model. Example: headroom eval recipes/reviews.yaml --adapter runs/reviews/best",
        };
        var adapter = new Option<string?>("--adapter")
        {
            Description = "Folder of an adapter (PEFT form); absent: the base alone.",
        };
        var split = new Option<string>("--split")
        {
            Description = "test or validation",
            DefaultValueFactory = _ => "test",
        };
        split.AcceptOnlyFromAmong("test", "validation");
        var set = new Option<string[]>("--set")
        {
            Description = "Override a key of the recipe. Repeatable.",
            DefaultValueFactory = _ => [],
        };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda." };
        var json = new Option<bool>("--json")
        {
            Description = "Print the result as JSON; progress goes to standard error.",
        };
        var command = new Command(
            "eval",
            "Measure a base or an adapter: the metrics of the task with 95 % intervals; of label words accuracy, "
                + "precision, recall and F1, of every class."
        )
        {
            recipe, adapter, split, set, device, json,
        };
        command.SetAction(p =>
            Run(
                p.GetValue(recipe)!, p.GetValue(adapter), p.GetValue(split)!, p.GetValue(set)!, p.GetValue(device),
                p.GetValue(json))
        );
        return command;
    }

    private static int Run(
        string path, string? adapterFolder, string split, string[] sets, string? deviceName, bool json)
    {
        var (recipe, _) = Recipes.Load(path, sets, deviceName, null, null);
        if (recipe.Models.Count != 1)
            throw new HeadroomException(
                $"eval takes one model, the recipe names {recipe.Models.Count}.", "Give a recipe with one model.");
        using var session = new Session(json);
        Recipes.Fetch(recipe, session);
        var model = recipe.Models[0];
        var data = DataSplits.Load(recipe.Data, recipe.Task, recipe.Training.Seed);
        var rows = split == "test" ? data.Test : data.Validation;
        if (rows.Count == 0) throw new HeadroomException($"The recipe has no {split} rows.", $"Set data.{split}.");
        var adapter = adapterFolder == null ? null : PeftAdapter.Load(adapterFolder, session.Say);
        var run = adapterFolder == null ? null : RunFolder.Of(adapterFolder);
        if (run is { } held && !sets.Any(s => s.TrimStart().StartsWith("quantization.", StringComparison.Ordinal)))
        {
            var cache = recipe.Quantization.Cache;
            recipe.Quantization = held.Manifest.Quantization; // the values it was trained on, whatever the recipe says
            recipe.Quantization.Cache = cache;
        }
        else if (
            run is { } over
            && (recipe.Quantization.LoadIn4bit, recipe.Quantization.LoadIn8bit)
                != (over.Manifest.Quantization.LoadIn4bit, over.Manifest.Quantization.LoadIn8bit)
        )
            session.Say(
                $"note: the adapter was trained over projections held as {over.Manifest.LinearStorage}; --set holds "
                    + $"them otherwise"
            );
        using var original = AdapterBase.Open(model.Path, recipe.Quantization, adapter, session.Say);
        var source = AdapterBase.Of(original, adapter);
        adapter?.CheckBase(source, session.Say);
        if (run is { } of) of.Folder.CheckConfiguration(of.Manifest, original.Config);
        var tokenizer = TokenizerLoader.Load(model.Tokenizer ?? model.Path);
        var task = TaskTypes.Of(recipe.Task).Make(recipe, tokenizer);
        var encoded = new EncodedRows(rows, task.Encode, false);
        int longest = encoded.EncodeAll(),
            batch = Math.Min(recipe.Training.PerDeviceEvalBatchSize, rows.Count),
            tokens = PreparedRun.BatchTokens(
                batch, longest, "training.per_device_eval_batch_size, or task.max_seq_length");
        var device = session.Open(recipe.Device.Word());
        var settings = RunSettings.Of(recipe, source, device) with
        {
            Mode = TrainMode.None,
            Lora = adapter == null ? null : Checkpoints.SettingsOf(adapter),
        };
        source.Config.CheckLength(longest);
        foreach (
            string note in source
                .Notices.Concat(tokenizer.Notices)
                .Concat(RunNotes.Of(task, rows, longest, source.Config))
        )
            session.Say("note: " + note);
        using var engine = new Engine(
            device, source, settings,
            new BatchLimits(EvalTokens: tokens, EvalSequences: batch, Candidates: Math.Max(1, task.Candidates)));
        if (adapter != null) Checkpoints.LoadAdapter(adapter, engine);
        Evaluation evaluation;
        try
        {
            evaluation = task.Evaluate(engine, encoded, new(batch, tokens, (ulong)(uint)recipe.Training.Seed, (d, n) =>
            {
                if (session.Token.IsCancellationRequested)
                    throw new StoppedException("Run it again; nothing was written.");
                session.Progress(split, d, n, "");
            }));
        }
        catch (NotFiniteException e) when (json)
        {
            Console.WriteLine(
                JsonSerializer.Serialize(
                    new
                    {
                        rows = rows.Count,
                        split,
                        error = e.Message,
                        to_do = e.ToDo,
                    }
                )
            );
            throw;
        }
        string title =
            $"{TrainRun.ModelName(model)}{(adapter == null ? "" : " with " + adapterFolder)} on {rows.Count} {split} "
                + $"rows";
        foreach (string line in task.Type.Lines(title, evaluation)) session.Say(Printable.Line(line));
        if (json) Console.WriteLine(task.Type.EvalJson(evaluation).ToJsonString());
        return 0;
    }
}
