using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Tokenizers.Chat;

namespace Headroom.Cli.Commands;

/// <summary>headroom generate: text that goes on from a prompt.</summary>
internal static class GenerateCommand
{
    public static Command Create()
    {
        var prompt = new Option<string?>("--prompt")
        {
            Description = "The text to go on from; without it, standard input is read.",
        };
        var command = new Command("generate", "Continue a prompt.") { prompt };
        var arguments = new GenerationArguments(
            "headroom generate models/llama-tiny --prompt \"The concert was\" --max-new-tokens 30", 64);
        arguments.AddTo(command);
        command.SetAction(p => Run(p, arguments, p.GetValue(prompt)));
        return command;
    }

    private static int Run(ParseResult p, GenerationArguments arguments, string? prompt)
    {
        bool json = arguments.Json(p);
        using var session = new Session(json, text: true);
        var model = arguments.Source(p, session);
        var options = arguments.Options(p, model.Path);
        string deviceName = arguments.Device(p);
        if (prompt == null)
        {
            if (!Console.IsInputRedirected)
                throw new HeadroomException(
                    "There is no prompt.", "Give --prompt \"...\", or write the prompt to standard input.");
            using (session.Waiting()) prompt = Console.In.ReadToEnd();
        }
        int[] ids = model.Tokenizer.EncodePrompt(prompt);
        if (ids.Length == 0) throw new HeadroomException("The prompt has no tokens.", "Give some text.");
        int context = (int)Math.Min(int.MaxValue, (long)ids.Length + options.MaxNewTokens);
        using var generator = Generator.Open(
            session.Open(deviceName), model, context, session.Say, (d, n) => session.Progress("loading", d, n, ""));
        session.EndLine();
        var g = generator.Start(ids, options);
        GenerationArguments.Run(g, session, print: !json);
        if (json)
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                prompt,
                text = g.Text,
                ids = g.Ids,
                finish_reason = GenerationArguments.Finish(g),
                prompt_tokens = g.PromptTokens,
                prompt_seconds = g.PromptSeconds,
                tokens_per_second = g.TokensPerSecond,
            }));
        else
        {
            Console.WriteLine();
            Console.Error.WriteLine(GenerationArguments.Figures(g));
        }
        GenerationArguments.CheckStopped(g);
        return 0;
    }
}
