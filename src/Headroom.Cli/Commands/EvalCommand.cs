using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Inference;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>headroom eval: a base, or a base with an adapter, on the test or validation rows of a recipe.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var recipe = new Argument<string>("recipe")
        {
            Description =
                "A run's folder (its best adapter), or a YAML recipe with one model. Example: headroom eval "
                    + "recipes/reviews.yaml --adapter runs/reviews/best",
        };
        var adapter = new Option<string?>("--adapter")
        {
            Description = "Folder of an adapter (PEFT form); absent: the base alone.",
        };
        var split = CommonOptions.With("--split", "test", "test or validation");
        split.AcceptOnlyFromAmong("test", "validation");
        var set = new Option<string[]>("--set")
        {
            Description = "Override a key of the recipe. Repeatable.",
            DefaultValueFactory = _ => [],
        };
        var rows = CommonOptions.Make<string?>("--rows", "A .jsonl file to write: what was found of each row.");
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda." };
        var json = CommonOptions.Json();
        var command = new Command(
            "eval",
            "Measure a base or an adapter: the metrics of the task with 95 % intervals; of label words accuracy, "
                + "precision, recall and F1, of every class."
        )
        {
            recipe, adapter, split, set, device, rows, json,
        };
        command.SetAction(p =>
            Run(
                p.GetValue(recipe)!, p.GetValue(adapter), p.GetValue(split)!, p.GetValue(set)!, p.GetValue(device),
                p.GetValue(rows), p.GetValue(json))
        );
        return command;
    }

    private static int Run(
        string path, string? adapter, string split, string[] sets, string? deviceName, string? rowsPath, bool json)
    {
        using var target = rowsPath == null ? null : OutputTarget.OfFile(rowsPath, false, "Give another file.");
        if (RunPlace.Find(path) is { } run)
        {
            path = run.RecipePath;
            adapter ??= run.Best;
        }
        var (recipe, _) = Recipes.Load(path, sets, deviceName, null, null);
        if (recipe.Models.Count != 1)
            throw new HeadroomException(
                $"eval takes one model, the recipe names {recipe.Models.Count}.", "Give a recipe with one model.");
        using var session = new Session(json);
        Recipes.Fetch(recipe, session);
        var data = DataSplits.Load(recipe.Data, recipe.Task, recipe.Training.Seed);
        var rows = split == "test" ? data.Test : data.Validation;
        if (rows.Count == 0) throw new HeadroomException($"The recipe has no {split} rows.", $"Set data.{split}.");
        var of = recipe.Models[0];
        using var model = Open(recipe, of, adapter, sets, session);
        var task = TaskTypes.Get(recipe.Task).Make(recipe, model.Tokenizer);
        var encoded = new EncodedRows(rows, task.Encode, training: false);
        int longest = encoded.EncodeAll(),
            batch = Math.Min(recipe.Training.PerDeviceEvalBatchSize, encoded.Count),
            tokens = PreparedRun.BatchTokens(
                batch, longest, "training.per_device_eval_batch_size, or task.max_seq_length");
        model.Config.CheckLength(encoded.LongestSequence + task.AnswerTokens);
        var device = session.Open(recipe.Device.Word());
        var settings = model.Settings(device, recipe.Training.Precision);
        foreach (string note in model.Notices.Concat(RunNotes.Find(task, rows, longest, model.Config)))
            session.Say("note: " + note);
        using var engine = model.Load(
            device, settings,
            new BatchLimits(
                EvalTokens: tokens, EvalSequences: batch * encoded.SequencesOfRow,
                Candidates: Math.Max(1, task.Candidates),
                GenerateTokens: task.AnswerTokens > 0 ? longest + task.AnswerTokens : 0));
        var evaluation = Measured(json, split, rows.Count, () =>
            task.Evaluate(engine, encoded, new(batch, tokens, (ulong)(uint)recipe.Training.Seed, (d, n) =>
            {
                if (session.Token.IsCancellationRequested)
                    throw new StoppedException("Run it again; nothing was written.");
                session.Progress(split, d, n, "");
            }, (float)recipe.Training.LabelSmoothingFactor)));
        string title =
            $"{TrainRun.ModelName(of)}{(adapter == null ? "" : " with " + adapter)} on {rows.Count} {split} rows";
        foreach (string line in task.Type.Lines(title, evaluation)) session.Say(Printable.Line(line));
        if (json) Console.WriteLine(task.Type.EvalJson(evaluation).ToJsonString());
        if (target != null) WriteRows(target, evaluation);
        return 0;
    }

    private static void WriteRows(OutputTarget target, Evaluation evaluation)
    {
        using (var file = new StreamWriter(target.Temporary))
            foreach (var (i, row) in (evaluation.EachRow?.Invoke() ?? []).Index())
            {
                row.Insert(0, "row", i + 1);
                file.WriteLine(row.ToJsonString(PredictCommand.Relaxed));
            }
        target.Commit();
    }

    /// <summary>
    /// An adapter of a run is measured over the projections that it was trained on, whatever the recipe says, unless
    /// --set asks for others.
    /// </summary>
    private static OpenModel Open(
        Recipe recipe, ModelOptions of, string? adapter, string[] sets, Session session)
    {
        bool isAsked = sets.Any(s => s.TrimStart().StartsWith("quantization.", StringComparison.Ordinal));
        var model = OpenModel.Open(
            new ModelSource(of.Path)
            {
                TokenizerPath = of.Tokenizer,
                Adapter = adapter,
                Quantization = recipe.Quantization,
                AsTrained = !isAsked,
            },
            session.Say);
        var asked = recipe.Quantization;
        if (
            isAsked
            && model.Run is { Quantization: var trained } run
            && (asked.LoadIn4bit, asked.LoadIn8bit) != (trained.LoadIn4bit, trained.LoadIn8bit)
        )
            session.Say(
                $"note: the adapter was trained over projections held as {run.LinearStorage}; --set holds them "
                    + $"otherwise"
            );
        return model;
    }

    // A script is told in JSON too that there is nothing to measure.
    private static Evaluation Measured(bool json, string split, int rows, Func<Evaluation> evaluate)
    {
        try
        {
            return evaluate();
        }
        catch (NotFiniteException e) when (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new { rows, split, error = e.Message, to_do = e.ToDo }));
            throw;
        }
    }
}
