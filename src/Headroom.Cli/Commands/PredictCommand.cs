using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Data;
using Headroom.Inference;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>headroom predict: what a trained model says of new rows.</summary>
internal static class PredictCommand
{
    private const int Chunk = 256; // rows that are read and answered at once

    public static Command Create()
    {
        var run = new Argument<string>("run")
        {
            Description = "A run's folder. Example: headroom predict runs/reviews --text \"A wonderful film.\"",
        };
        var text = CommonOptions.Make<string?>("--text", "One text; its answer is printed.");
        var system = CommonOptions.Make<string?>("--system", "What a system message says before --text.");
        var from = CommonOptions.Make<string?>("--in", "A data file with the task's columns, without answers or with.");
        var to = CommonOptions.Make<string?>(
            "--out", "The .jsonl file to write: each row with its answer; absent: standard output.");
        var tokens = CommonOptions.With("--max-new-tokens", 256, "Tokens of an answer, at most");
        var device = CommonOptions.With("--device", "auto", "auto, cpu or cuda");
        device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        var overwrite = new Option<bool>("--overwrite") { Description = "Replace the file that is there." };
        var command = new Command(
            "predict",
            "Answer new texts or rows with the model of a run: labels with their probabilities, or texts.")
        {
            run, text, system, from, to, tokens, device, overwrite,
        };
        command.SetAction(p => Run(
            p.GetValue(run)!, p.GetValue(text), p.GetValue(system), p.GetValue(from), p.GetValue(to),
            p.GetValue(tokens),
            p.GetValue(device)!, p.GetValue(overwrite)));
        return command;
    }

    private static int Run(
        string folder, string? text, string? system, string? from, string? to, int tokens, string deviceName,
        bool overwrite)
    {
        using var session = new Session(true);
        if (text == null == (from == null))
            throw new HeadroomException(
                text == null ? "There is nothing to answer." : "--text and --in are both given.",
                "Give --text \"...\", or --in with a data file.");
        if (system != null && text == null)
            throw new HeadroomException("--system goes with --text.", "Rows have their own system messages.");
        if (tokens < 1) throw new HeadroomException("--max-new-tokens must be at least 1.", "Give a positive number.");
        if (to != null && from == null) throw new HeadroomException("--out goes with --in.", "Leave one of them out.");
        if (to != null && !to.EndsWith(".jsonl", StringComparison.Ordinal))
            throw new HeadroomException($"--out {to} does not end in .jsonl.", "Rows are written as JSON, one a line.");
        using var target = to == null ? null : OutputTarget.OfFile(to, overwrite, "Give another file, or --overwrite.");
        var place = RunPlace.Find(folder)
            ?? throw new HeadroomException($"{folder} is no run's folder.", "Name one, such as runs/reviews.");
        var recipe = place.Recipe();
        var model = place.Model(session);
        var prompts = TaskTypes.Get(recipe.Task).Prompts(recipe, model.Tokenizer)
            ?? throw new HeadroomException(
                $"The task {recipe.Task.Type} has no prompts to answer.", "Evaluate the run with headroom eval.");
        using var answerer = Answerer.Open(session, model, prompts, recipe, tokens, deviceName);
        if (text != null)
        {
            ChatMessage[] asked = [new("user", text)];
            if (system != null) asked = [new("system", system), .. asked];
            Console.WriteLine(Json(answerer.Answer([prompts.Encode(asked)]).Single()));
            return 0;
        }
        using var output = target == null ? null : new StreamWriter(target.Temporary);
        long done = 0;
        foreach (var rows in DataFiles.Records(from!, new() { Header = recipe.Data.Header }).Chunk(Chunk))
        {
            var ids = rows.Select(r => prompts.Encode(new ColumnReader(r, recipe.Data))).ToList();
            foreach (var (row, answer) in rows.Zip(answerer.Answer(ids)))
            {
                foreach (var (key, value) in answer.ToList())
                {
                    answer.Remove(key);
                    row.Fields[Free(row.Fields, key)] = value;
                }
                (output ?? Console.Out).WriteLine(Json(row.Fields));
            }
            session.Progress("predict", done += rows.Length, done, "");
            if (session.Token.IsCancellationRequested)
                throw new StoppedException(to == null ? "Run it again." : "Run it again; nothing was written.");
        }
        output?.Dispose();
        target?.Commit();
        if (to != null) session.Say($"{to}: {done} rows");
        return 0;
    }

    // A column of the data keeps its name.
    private static string Free(JsonObject fields, string key)
    {
        while (fields.ContainsKey(key)) key = "predicted_" + key;
        return key;
    }

    private static string Json(JsonObject value) => value.ToJsonString(Relaxed);

    internal static readonly JsonSerializerOptions Relaxed = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>A model that answers prompts: with one of its labels, or in words.</summary>
    private sealed class Answerer : IDisposable
    {
        private const int BatchRows = 32;
        private readonly Engine? _engine;
        private readonly Generator? _generator;
        private readonly IPrompts _prompts;
        private readonly int _batchTokens, _tokens;

        private Answerer(Engine? engine, Generator? generator, IPrompts prompts, int batchTokens, int tokens) =>
            (_engine, _generator, _prompts, _batchTokens, _tokens) = (engine, generator, prompts, batchTokens, tokens);

        public static Answerer Open(
            Session session, ModelSource source, IPrompts prompts, Recipe recipe, int tokens, string deviceName)
        {
            var device = session.Open(deviceName);
            void Progress(long d, long n) => session.Progress("loading", d, n, "");
            if (prompts.Labels.Count == 0)
            {
                // What the model takes, since a prompt may be longer than those that it was trained on.
                var generator = Generator.Open(device, source, null, session.Say, Progress);
                return new(null, generator, prompts, 0, tokens);
            }
            using var model = OpenModel.Open(source, session.Say);
            int batch = BatchRows * recipe.Task.MaxSeqLength;
            var limits = new BatchLimits(
                EvalTokens: batch, EvalSequences: BatchRows, Candidates: prompts.Candidates.Count);
            return new(model.Load(device, model.Settings(device), limits, Progress), null, prompts, batch, tokens);
        }

        public IEnumerable<JsonObject> Answer(IReadOnlyList<int[]> prompts) =>
            _generator != null ? prompts.Select(Words) : Scored(prompts);

        private JsonObject Words(int[] prompt) =>
            new() { ["answer"] = _generator!.Run(prompt, new GenerationOptions { MaxNewTokens = _tokens }).Text };

        private IEnumerable<JsonObject> Scored(IReadOnlyList<int[]> prompts)
        {
            int[] candidates = [.. _prompts.Candidates];
            var batch = new MicroBatch(_batchTokens, BatchRows);
            foreach (int[][] some in prompts.Chunk(BatchRows))
            {
                batch.Clear();
                foreach (int[] prompt in some) batch.AddPrompt(prompt, candidates[0]);
                float[] scores = new float[some.Length * candidates.Length], logSumExp = new float[some.Length];
                _engine!.Scores(batch.Host, candidates, scores, logSumExp);
                for (int i = 0; i < some.Length; i++)
                    yield return Label(scores.AsSpan(i * candidates.Length, candidates.Length));
            }
        }

        // Probabilities among the labels: what else the model might say does not count.
        private JsonObject Label(ReadOnlySpan<float> scores)
        {
            double largest = double.NegativeInfinity, sum = 0;
            foreach (float s in scores) largest = Math.Max(largest, s);
            foreach (float s in scores) sum += Math.Exp(s - largest);
            var probabilities = new JsonObject();
            int best = 0;
            for (int i = 0; i < scores.Length; i++)
            {
                if (scores[i] > scores[best]) best = i;
                probabilities[_prompts.Labels[i]] = Math.Round(Math.Exp(scores[i] - largest) / sum, 6);
            }
            return new() { ["label"] = _prompts.Labels[best], ["probabilities"] = probabilities };
        }

        public void Dispose()
        {
            _engine?.Dispose();
            _generator?.Dispose();
        }
    }
}
