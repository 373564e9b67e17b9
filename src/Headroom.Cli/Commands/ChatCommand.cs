using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>headroom chat: a conversation in the terminal, over the model's chat template.</summary>
internal static class ChatCommand
{
    public static Command Create()
    {
        var system = new Option<string?>("--system") { Description = "The system message." };
        var message = new Option<string[]>("--message")
        {
            Description =
                "A user message, answered without asking for more. Repeatable: the turns of one conversation.",
            DefaultValueFactory = _ => [],
        };
        var context = new Option<int?>("--context")
        {
            Description =
                $"Tokens that the conversation may take. Default: what the model takes, at most "
                    + $"{Generator.DefaultContext}.",
        };
        var command = new Command(
            "chat",
            "Talk to a model that has a chat template. /reset starts a new conversation, /exit ends; lines of "
                + "standard input are messages when it is not a terminal."
        )
        {
            system, message, context,
        };
        var arguments = new GenerationArguments(
            "headroom chat HuggingFaceTB/SmolLM2-135M-Instruct --message \"Name three colours.\"", 512);
        arguments.AddTo(command);
        command.SetAction(p => Run(p, arguments, p.GetValue(system), p.GetValue(message)!, p.GetValue(context)));
        return command;
    }

    private static int Run(
        ParseResult p, GenerationArguments arguments, string? system, string[] messages, int? context)
    {
        bool json = arguments.Json(p);
        using var session = new Session(json, text: true);
        var model = arguments.Source(p, session);
        var options = arguments.Options(p, model.Path);
        string deviceName = arguments.Device(p);
        if (context is < 2)
            throw new HeadroomException(
                $"--context is {context}.", "Give the tokens that the conversation may take, such as 2048.");
        var encode = Prompt(arguments.Model(p), model);
        using var generator = Generator.Open(
            session.Open(deviceName), model, context, session.Say, (d, n) => session.Progress("loading", d, n, ""));
        session.EndLine();
        bool ask = messages.Length == 0 && !Console.IsInputRedirected;
        if (ask)
            session.Say(
                $"{Path.GetFileName(arguments.Model(p).TrimEnd('/'))} on {generator.DeviceName}, "
                    + $"{generator.ContextLength} tokens of context. /reset starts a new conversation, /exit ends."
            );
        Talk(generator, encode, options, session, system, messages, ask, json);
        return 0;
    }

    /// <summary>
    /// A conversation as the model's prompt: in the form that a run was trained on, else by the chat template.
    /// </summary>
    private static Func<IReadOnlyList<ChatMessage>, int[]> Prompt(string given, ModelSource model)
    {
        if (RunPlace.Find(given) is { } run && run.Recipe() is var recipe
            && TaskTypes.Get(recipe.Task).Prompts(recipe, model.Tokenizer) is { } prompts)
            return prompts.Encode;
        var template = ChatTemplate.Get(model.Tokenizer);
        return messages => template.Encode(messages, addGenerationPrompt: true);
    }

    private static void Talk(
        Generator generator, Func<IReadOnlyList<ChatMessage>, int[]> encode, GenerationOptions options, Session session,
        string? system, string[] messages, bool ask, bool json)
    {
        var history = new List<ChatMessage>();
        void Reset()
        {
            history.Clear();
            if (system != null) history.Add(new ChatMessage("system", system));
        }
        Reset();
        int turn = 0;
        while (Next(session, ask, messages, turn) is { } text)
        {
            turn++;
            switch (text.Trim())
            {
                case "": continue;
                case "/exit" or "/quit": return;
                case "/reset":
                    Reset();
                    if (ask) session.Say("a new conversation");
                    continue;
            }
            history.Add(new ChatMessage("user", text));
            try
            {
                // Each turn draws its own numbers, the same in every run.
                var g = generator.Start(
                    encode(history),
                    options with
                    {
                        Sampling = options.Sampling with { Seed = options.Sampling.Seed + turn - 1 },
                    }
                );
                Answer(g, session, json, text);
                history.Add(new ChatMessage("assistant", g.Text));
                if (!ask || !session.Rearm()) GenerationArguments.CheckStopped(g);
            }
            catch (HeadroomException e) when (ask && e.ExitCode == 2)
            {
                history.RemoveAt(history.Count - 1);
                Console.Error.WriteLine($"error: {e.Message}\n  {e.ToDo} /reset starts a new conversation.");
            }
        }
    }

    private static string? Next(Session session, bool ask, string[] messages, int turn)
    {
        if (messages.Length > 0) return turn < messages.Length ? messages[turn] : null;
        if (ask) Console.Write("> ");
        using (session.Waiting()) return Console.In.ReadLine();
    }

    private static void Answer(Generation g, Session session, bool json, string message)
    {
        GenerationArguments.Run(g, session, print: !json);
        if (json)
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                message,
                text = g.Text,
                finish_reason = GenerationArguments.Finish(g),
                prompt_tokens = g.PromptTokens,
                reused_tokens = g.ReusedTokens,
                completion_tokens = g.Ids.Count,
                prompt_seconds = g.PromptSeconds,
                tokens_per_second = g.TokensPerSecond,
            }));
        else
        {
            Console.WriteLine();
            if (g.Finish == FinishReason.Length)
                Console.Error.WriteLine("(cut off: --max-new-tokens or --context is reached)");
            Console.Error.WriteLine(GenerationArguments.Figures(g));
        }
    }
}
