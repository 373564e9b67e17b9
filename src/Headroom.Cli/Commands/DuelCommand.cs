using System.CommandLine;
using System.Text.Json.Nodes;
using Headroom.Reports;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>headroom duel: two or more base models under one recipe.</summary>
internal static class DuelCommand
{
    public static Command Create()
    {
        var recipe = new Argument<string?>("recipe")
        {
            Arity = ArgumentArity.ZeroOrOne,
            Description =
                "A YAML recipe with two or more models; absent: two tiny bases and the reviews that come with "
                    + "Headroom. Example: headroom duel recipes/duel.yaml --set training.seed=2",
        };
        var set = new Option<string[]>("--set")
        {
            Description = "Override a key: --set training.seed=2. Repeatable.",
            DefaultValueFactory = _ => [],
        };
        var runs = CommonOptions.With("--runs", "runs", "Folder of run folders.");
        var name = new Option<string?>("--name")
        {
            Description =
                "Name of the run folder; default: the recipe's (the embedded duel takes the next free number).",
        };
        var device = new Option<string?>("--device")
        {
            Description = "auto, cpu or cuda; the embedded duel runs on the CPU.",
        };
        var vram = new Option<string?>("--vram") { Description = "Budget, such as 6GiB." };
        var resume = new Option<bool>("--resume") { Description = "Go on where a stopped duel ended." };
        var json = CommonOptions.Json();
        var command = new Command("duel", "Fine-tune two or more models under one recipe and compare them.")
        {
            recipe, set, runs, name, device, vram, resume, json,
        };
        command.SetAction(p =>
            Run(
                p.GetValue(recipe), p.GetValue(set)!, p.GetValue(runs)!, p.GetValue(name), p.GetValue(device),
                p.GetValue(vram), p.GetValue(resume), p.GetValue(json))
        );
        return command;
    }

    private static int Run(
        string? path, string[] sets, string runs, string? name, string? device, string? vram, bool resume, bool json)
    {
        bool embedded = path == null;
        var (recipe, text) = Recipes.Load(
            path ?? Path.Combine(AppContext.BaseDirectory, "recipes", "duel.yaml"), sets, device, vram, name);
        if (embedded && name == null && !resume)
        {
            string first = recipe.Name;
            for (int i = 2; Directory.Exists(Path.Combine(runs, recipe.Name)); i++) recipe.Name = $"{first}-{i}";
        }
        string folder = Path.Combine(runs, recipe.Name);
        using var session = new Session(json);
        Recipes.Fetch(recipe, session);
        return RunAll(recipe, text, folder, resume, session, json);
    }

    /// <summary>Every model with every seed, and the report of all.</summary>
    public static int RunAll(Recipe recipe, string text, string folder, bool resume, Session session, bool json)
    {
        var result = DuelRun.Run(
            recipe, text, folder, resume, (own, again) => session.Host(own, again, recipe), session.Token);
        if (!result.Completed)
        {
            session.Say("stopped; go on with --resume");
            return 1;
        }
        string html = (result.WasFinished ? Report.Find(folder) : null)?.Html ?? Report.Write(folder).Html;
        session.Say($"report: {html}");
        if (json)
            Console.WriteLine(new JsonObject
            {
                ["folder"] = folder,
                ["report"] = html,
                ["runs"] = new JsonArray([
                        .. result.Runs.Select(r =>
                            (JsonNode?)
                                ResultJson.Metrics(
                                    TaskTypes.Get(recipe.Task),
                                    r.Result,
                                    new()
                                    {
                                        ["model"] = r.Model, ["seed"] = r.Seed, ["folder"] = r.Folder,
                                        ["adapter_sha256"] = r.Result?.AdapterHash,
                                    }
                                )
                        ),
                    ]),
            }.ToJsonString());
        return 0;
    }
}
