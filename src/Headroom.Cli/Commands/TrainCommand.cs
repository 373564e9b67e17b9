using System.CommandLine;
using Headroom.Core;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>headroom train: one model under one recipe.</summary>
internal static class TrainCommand
{
    public static Command Create()
    {
        var recipe = new Argument<string>("recipe")
        {
            Description =
                "A YAML recipe. Example: headroom train recipes/reviews.yaml --set training.learning_rate=2e-3",
        };
        var set = new Option<string[]>("--set")
        {
            Description = "Override a key: --set training.seed=2. Repeatable.",
            DefaultValueFactory = _ => [],
        };
        var runs = CommonOptions.With("--runs", "runs", "Folder of run folders.");
        var name = new Option<string?>("--name") { Description = "Name of the run folder; default: the recipe's." };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda." };
        var vram = new Option<string?>("--vram") { Description = "Budget, such as 6GiB." };
        var resume = new Option<bool>("--resume")
        {
            Description =
                "Go on from the latest checkpoint of the run folder; of one that was renamed or moved with --name and "
                    + "--runs. "
                + "What changes numbers must be as it was; training.max_steps and num_train_epochs may be raised, the "
                + "schedule is then that of the new length from the next step on.",
        };
        var json = CommonOptions.Json();
        var command = new Command("train", "Fine-tune a model as a recipe says, with each of its seeds.")
        {
            recipe, set, runs, name, device, vram, resume, json,
        };
        command.SetAction(p =>
            Run(
                p.GetValue(recipe)!, p.GetValue(set)!, p.GetValue(runs)!, p.GetValue(name), p.GetValue(device),
                p.GetValue(vram), p.GetValue(resume), p.GetValue(json))
        );
        return command;
    }

    private static int Run(
        string path, string[] sets, string runs, string? name, string? device, string? vram, bool resume, bool json)
    {
        var (recipe, text) = Recipes.Load(path, sets, device, vram, name);
        if (recipe.Models.Count != 1)
            throw new HeadroomException(
                $"train takes one model, the recipe names {recipe.Models.Count}.", "Use headroom duel for two or more."
            );
        string folder = Path.Combine(runs, recipe.Name);
        using var session = new Session(json);
        Recipes.Fetch(recipe, session);
        if (recipe.Seeds.Count > 0) return DuelCommand.RunAll(recipe, text, folder, resume, session, json);
        var result = TrainRun.Run(recipe, text, recipe.Models[0], session.Host(folder, resume, recipe), session.Token);
        if (!result.Completed)
        {
            session.Say($"stopped after step {result.Step}; go on with --resume");
            return 1;
        }
        var run = new RunFolder(folder);
        if (!result.WasFinished) session.Say($"adapter: {run.Best}");
        if (!result.WasFinished || Reports.Report.Find(folder) == null)
            session.Say($"report: {Reports.Report.Write(folder).Html}");
        if (json)
            Console.WriteLine(ResultJson.Metrics(TaskTypes.Get(recipe.Task), result,
                        new()
                        {
                            ["folder"] = folder,
                            ["steps"] = result.Step,
                            ["adapter_sha256"] = result.AdapterHash,
                        }
                    )
                    .ToJsonString()
            );
        return 0;
    }
}
