using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Training.Pretraining;

namespace Headroom.Cli.Commands;

/// <summary>headroom pretrain: a small base from nothing.</summary>
internal static class PretrainCommand
{
    public static Command Create()
    {
        var d = new PretrainOptions();
        var output = new Argument<string>("out")
        {
            Description =
                "Folder of the new model. Example: headroom pretrain my-tiny --tokenizer sentencepiece --layers 2 "
                    + "--notes 500 --epochs 1",
        };
        var tokenizer = CommonOptions.With("--tokenizer", d.Tokenizer, "sentencepiece or byte-level");
        tokenizer.AcceptOnlyFromAmong("sentencepiece", "byte-level");
        var vocab = CommonOptions.With("--vocab", d.VocabSize, "vocab_size asked for");
        var hidden = CommonOptions.With("--hidden", d.HiddenSize, "hidden_size");
        var inter = CommonOptions.With("--intermediate", d.IntermediateSize, "intermediate_size");
        var layers = CommonOptions.With("--layers", d.NumHiddenLayers, "num_hidden_layers");
        var heads = CommonOptions.With("--heads", d.NumAttentionHeads, "num_attention_heads");
        var notes = CommonOptions.With("--notes", d.Notes, "Notes of the embedded corpus");
        var epochs = CommonOptions.With("--epochs", d.Epochs, "Passes over them");
        var lr = CommonOptions.With("--learning-rate", d.LearningRate, "Peak learning rate");
        var seed = CommonOptions.With("--seed", d.Seed, "Seed");
        var device = CommonOptions.With("--device", "cpu", "auto, cpu or cuda");
        device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        var overwrite = new Option<bool>("--overwrite")
        {
            Description = "Replace a base that is there; it stays whole until the new one is.",
        };
        var json = CommonOptions.Json();
        var command = new Command("pretrain", "Make a small base model from the embedded corpus.")
        {
            output, tokenizer, vocab, hidden, inter, layers, heads, notes, epochs, lr, seed, overwrite, device, json,
        };
        command.SetAction(p =>
            Run(
                new PretrainOptions
                {
                    Tokenizer = p.GetValue(tokenizer)!,
                    VocabSize = p.GetValue(vocab),
                    HiddenSize = p.GetValue(hidden),
                    IntermediateSize = p.GetValue(inter),
                    NumHiddenLayers = p.GetValue(layers),
                    NumAttentionHeads = p.GetValue(heads),
                    Notes = p.GetValue(notes),
                    Epochs = p.GetValue(epochs),
                    LearningRate = p.GetValue(lr),
                    Seed = p.GetValue(seed),
                },
                p.GetValue(output)!, p.GetValue(device)!, p.GetValue(overwrite), p.GetValue(json))
        );
        return command;
    }

    private static int Run(PretrainOptions o, string folder, string device, bool overwrite, bool json)
    {
        Check(o);
        using var session = new Session(json);
        double? loss = Pretrainer.Run(
            o, folder, session.Open(device), session.Say, session.Progress, session.Token, overwrite);
        if (loss == null)
        {
            session.Say("stopped; nothing was written");
            return 1;
        }
        session.Say(string.Create(CultureInfo.InvariantCulture, $"{folder}: final loss {loss:F4}"));
        if (json) Console.WriteLine(JsonSerializer.Serialize(new { folder, loss }));
        return 0;
    }

    private static void Check(PretrainOptions o)
    {
        if (
            o.VocabSize < 512
            || o.HiddenSize < 1
            || o.IntermediateSize < 1
            || o.NumHiddenLayers < 1
            || o.NumAttentionHeads < 1
            || o.Notes < 1
            || !(o.Epochs > 0)
        )
            throw new HeadroomException(
                "--vocab must be at least 512 and every other size positive.", "Give larger sizes.");
        if (
            o.VocabSize > 1 << 17
            || o.HiddenSize > 1 << 14
            || o.IntermediateSize > 1 << 16
            || o.NumHiddenLayers > 256
            || o.Notes > 10_000_000
            || o.Epochs > 1000
        )
            throw new HeadroomException(
                "A size is beyond what pretrain is for.",
                "At most: --vocab 131072, --hidden 16384, --intermediate 65536, --layers 256, --notes 10000000, "
                    + "--epochs 1000."
            );
    }
}
