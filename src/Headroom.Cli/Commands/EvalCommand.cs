using System.CommandLine;
using System.Globalization;
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
        var recipe = new Argument<string>("recipe") { Description = "A YAML recipe with one model. Example: headroom eval recipes/imdb-smollm2.yaml --adapter runs/imdb-smollm2/best" };
        var adapter = new Option<string?>("--adapter") { Description = "Folder of an adapter (PEFT form); absent: the base alone." };
        var split = new Option<string>("--split") { Description = "test or validation", DefaultValueFactory = _ => "test" };
        split.AcceptOnlyFromAmong("test", "validation");
        var set = new Option<string[]>("--set") { Description = "Override a key of the recipe. Repeatable.", DefaultValueFactory = _ => [] };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda." };
        var json = new Option<bool>("--json") { Description = "Print the result as JSON; progress goes to standard error." };
        var command = new Command("eval", "Score label words: accuracy, precision, recall, F1 with 95 % intervals.") { recipe, adapter, split, set, device, json };
        command.SetAction(p => Run(p.GetValue(recipe)!, p.GetValue(adapter), p.GetValue(split)!, p.GetValue(set)!, p.GetValue(device), p.GetValue(json)));
        return command;
    }

    private static int Run(string path, string? adapterFolder, string split, string[] sets, string? deviceName, bool json)
    {
        var (recipe, _) = Recipes.Load(path, sets, deviceName, null, null);
        if (recipe.Models.Count != 1) throw new HeadroomException($"eval takes one model, the recipe names {recipe.Models.Count}.", "Give a recipe with one model.");
        using var session = new Session(json);
        Recipes.Fetch(recipe, session);
        var model = recipe.Models[0];
        var data = DataSplits.Load(recipe.Data, recipe.Task, recipe.Training.Seed);
        var rows = split == "test" ? data.Test : data.Validation;
        if (rows.Count == 0) throw new HeadroomException($"The recipe has no {split} rows.", $"Set data.{split}.");
        var adapter = adapterFolder == null ? null : PeftAdapter.Load(adapterFolder, Console.Error.WriteLine);
        using var original = AdapterBase.Open(model.Path, recipe.Quantization, adapter, session.Say);
        var source = AdapterBase.Of(original, adapter);
        adapter?.CheckBase(source, Console.Error.WriteLine);
        var encoder = new TaskEncoder(TokenizerLoader.Load(model.Tokenizer ?? model.Path), recipe.Task);
        var encoded = new EncodedRows(rows, encoder, false);
        int longest = encoded.EncodeAll(), batch = Math.Min(recipe.Training.PerDeviceEvalBatchSize, rows.Count), tokens = PreparedRun.BatchTokens(batch, longest, "training.per_device_eval_batch_size, or task.max_seq_length");
        var device = session.Open(recipe.Device);
        var settings = RunSettings.Of(recipe, source, device) with
        {
            Mode = TrainMode.None,
            Lora = adapter == null ? null : Checkpoints.SettingsOf(adapter),
        };
        source.Config.CheckLength(longest);
        foreach (string note in Evaluator.Notes(rows, encoder, longest, source.Config)) session.Say("note: " + note);
        using var engine = new Engine(device, source, settings, new BatchLimits(EvalTokens: tokens, EvalSequences: batch, Candidates: encoder.Candidates.Length));
        if (adapter != null) Checkpoints.LoadAdapter(adapter, engine);
        var p = Evaluator.Run(engine, encoded, encoder.Candidates, batch, tokens, (d, n) =>
        {
            if (session.Token.IsCancellationRequested) throw new HeadroomException("Stopped.", "Run it again; nothing was written.", 1);
            session.Progress(split, d, n, "");
        });
        var accuracy = Reports.Statistics.Wilson(p.Gold.Zip(p.Predicted).Count(x => x.First == x.Second), p.Gold.Length);
        var i = Reports.Statistics.Bootstrap(p.Confusion, (ulong)(uint)recipe.Training.Seed);
        string Show(string name, Reports.Interval v) => string.Create(CultureInfo.InvariantCulture, $"{name} {v.Value:F4} [{v.Low:F4}, {v.High:F4}]");
        session.Say($"{TrainRun.ModelName(model)}{(adapter == null ? "" : " with " + adapterFolder)} on {rows.Count} {split} rows: {Show("accuracy", accuracy)}, {Show("precision", i.Precision)}, {Show("recall", i.Recall)}, {Show("F1", i.F1)}");
        foreach (var tier in Enumerable.Range(0, rows.Count).Where(r => p.Tiers[r] != null).GroupBy(r => p.Tiers[r]!).OrderBy(t => t.Key, StringComparer.Ordinal))
            session.Say("  " + Show($"tier {tier.Key}: accuracy", Reports.Statistics.Wilson(tier.Count(r => p.Gold[r] == p.Predicted[r]), tier.Count())));
        if (json)
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                rows = rows.Count, loss = p.Loss, accuracy = accuracy.Value, accuracy_low = accuracy.Low, accuracy_high = accuracy.High, precision = p.Precision, recall = p.Recall, f1 = p.F1, f1_low = i.F1.Low, f1_high = i.F1.High,
                confusion = p.Confusion,
            }));
        return 0;
    }
}
