using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Tokenizers;
using Headroom.Models;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>headroom generate: text that goes on from a prompt.</summary>
internal static class GenerateCommand
{
    public static Command Create()
    {
        var d = new SamplingOptions();
        var model = new Argument<string>("model") { Description = "A Hugging Face folder or .gguf file. Example: headroom generate models/llama-tiny --prompt \"The concert was\" --max-new-tokens 30" };
        var prompt = new Option<string>("--prompt") { Description = "The text to go on from.", Required = true };
        var adapter = new Option<string?>("--adapter") { Description = "Folder of an adapter (PEFT form)." };
        var tokens = new Option<int>("--max-new-tokens") { Description = "At most so many tokens", DefaultValueFactory = _ => 64 };
        var temperature = new Option<float>("--temperature") { Description = "0 = greedy", DefaultValueFactory = _ => d.Temperature };
        var topK = new Option<int>("--top-k") { Description = "Keep the k likeliest; 0 = all", DefaultValueFactory = _ => d.TopK };
        var topP = new Option<float>("--top-p") { Description = "Keep this much probability", DefaultValueFactory = _ => d.TopP };
        var seed = new Option<int>("--seed") { Description = "Seed of sampling", DefaultValueFactory = _ => d.Seed };
        var quantize = new Option<bool>("--load-in-4bit") { Description = "Hold the projections in NF4." };
        var device = new Option<string>("--device") { Description = "auto, cpu or cuda", DefaultValueFactory = _ => "auto" };
        var json = new Option<bool>("--json") { Description = "Print the result as JSON; progress goes to standard error." };
        var command = new Command("generate", "Continue a prompt.") { model, prompt, adapter, tokens, temperature, topK, topP, seed, quantize, device, json };
        command.SetAction(p => Run(p.GetValue(model)!, p.GetValue(prompt)!, p.GetValue(adapter), p.GetValue(tokens),
            new SamplingOptions { Temperature = p.GetValue(temperature), TopK = p.GetValue(topK), TopP = p.GetValue(topP), Seed = p.GetValue(seed) }, p.GetValue(quantize), p.GetValue(device)!, p.GetValue(json)));
        return command;
    }

    private static int Run(string path, string prompt, string? adapterFolder, int most, SamplingOptions sampling, bool quantize, string deviceName, bool json)
    {
        if (most < 1) throw new HeadroomException("--max-new-tokens must be at least 1.", "Give a positive number.");
        if (sampling.TopP is <= 0 or > 1 || sampling.Temperature < 0 || sampling.TopK < 0) throw new HeadroomException("--top-p must be in (0, 1], --temperature and --top-k not negative.", "Give other values.");
        if (deviceName is not ("auto" or "cpu" or "cuda")) throw new HeadroomException($"--device {deviceName} is unknown.", "Use auto, cpu or cuda.");
        var tokenizer = TokenizerLoader.Load(path);
        int[] ids = tokenizer.Encode(prompt, true);
        if (ids.Length == 0) throw new HeadroomException("The prompt has no tokens.", "Give some text.");
        var adapter = adapterFolder == null ? null : PeftAdapter.Load(adapterFolder);
        using var source = WeightSources.Open(path);
        if (adapter?.BaseHash is { } hash && hash != source.Hash) throw new HeadroomException("The adapter was trained on another base (its hash differs).", $"Give the base it belongs to: {adapter.BaseModel ?? "unknown"}.");
        int capacity = ids.Length + most;
        if (capacity > source.Config.MaxPositionEmbeddings)
            throw new HeadroomException($"Prompt ({ids.Length}) and new tokens ({most}) exceed the model's context of {source.Config.MaxPositionEmbeddings}.", "Shorten the prompt or lower --max-new-tokens.");
        using var session = new Session(json);
        var device = session.Open(deviceName);
        var recipe = new Recipe();
        recipe.Quantization.LoadIn4bit = quantize;
        var settings = RunSettings.Of(recipe, source, device) with
        {
            Mode = TrainMode.None,
            Lora = adapter == null ? null : new LoraSettings(adapter.R, adapter.LoraAlpha, adapter.LoraDropout, adapter.TargetModules, adapter.UseRslora),
        };
        using var engine = new Engine(device, source, settings, new BatchLimits(GenerateTokens: capacity));
        if (adapter != null) Checkpoints.LoadAdapter(adapter, engine);
        var logits = new float[source.Config.VocabSize];
        var sampler = new Sampler(sampling);
        var made = new List<int>();
        var cache = engine.StartGeneration();
        var clock = Stopwatch.StartNew();
        engine.Decode(ref cache, ids, logits);
        double first = clock.Elapsed.TotalSeconds;
        var ends = source.Config.EosTokenIds;
        int[] lead = ids[0] == tokenizer.BosId ? ids[1..] : ids;
        string shown = "";
        while (made.Count < most && !session.Token.IsCancellationRequested)
        {
            int next = sampler.Next(logits);
            if (ends.Contains(next) || next == tokenizer.EosId) break;
            made.Add(next);
            if (!json)
            {
                // The whole text is decoded again: pieces may join into one character. A half character is held back.
                string text = tokenizer.Decode([.. lead, .. made]);
                if (!text.EndsWith('\uFFFD') && text.StartsWith(shown, StringComparison.Ordinal))
                {
                    Console.Write(text[shown.Length..]);
                    shown = text;
                }
            }
            if (made.Count < most) engine.Decode(ref cache, [next], logits);
        }
        double seconds = clock.Elapsed.TotalSeconds - first;
        double rate = made.Count > 1 ? (made.Count - 1) / seconds : 0;
        if (json) Console.WriteLine(JsonSerializer.Serialize(new { prompt, text = tokenizer.Decode([.. made]), ids = made, prompt_tokens = ids.Length, prompt_seconds = first, tokens_per_second = rate }));
        else
        {
            Console.WriteLine();
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{ids.Length} prompt tokens in {first:F2} s, {made.Count} tokens at {rate:F1} tokens/s"));
        }
        return 0;
    }
}
