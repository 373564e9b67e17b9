using System.CommandLine;
using System.Globalization;
using Headroom.Cli;
using Headroom.Cli.Commands;

// whatever DOTNET_SYSTEM_GLOBALIZATION_INVARIANT says
CultureInfo.CurrentCulture = CultureInfo.DefaultThreadCurrentCulture = CultureInfo.InvariantCulture;
StandardStreams.Open();
var root = new RootCommand(
    "Headroom: fine-tune Llama-class language models in the memory you have, and know before you start what it will "
        + "take."
);
var verbose = new Option<bool>("--verbose") { Description = "Show stack traces of failures.", Recursive = true };
root.Options.Add(verbose);
root.Subcommands.Add(InspectCommand.Create());
root.Subcommands.Add(PlanCommand.Create());
root.Subcommands.Add(TrainCommand.Create());
root.Subcommands.Add(DuelCommand.Create());
root.Subcommands.Add(PretrainCommand.Create());
root.Subcommands.Add(EvalCommand.Create());
root.Subcommands.Add(GenerateCommand.Create());
root.Subcommands.Add(ChatCommand.Create());
root.Subcommands.Add(ExportCommand.Create());
root.Subcommands.Add(PredictCommand.Create());
root.Subcommands.Add(QuantizeCommand.Create());
root.Subcommands.Add(CacheCommand.Create());
root.Subcommands.Add(DataCommand.Create());
root.Subcommands.Add(ReportCommand.Create());
root.Subcommands.Add(BenchCommand.Create());
root.Subcommands.Add(DoctorCommand.Create());
var parsed = root.Parse(args);
try
{
    if (args.Length == 0) // the commands and their help, but as an error: nothing was done
    {
        root.Parse("--help").Invoke(new InvocationConfiguration { Output = Console.Error });
        return 2;
    }
    CommandLine.Check(parsed);
    return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
}
catch (OutputClosedException e)
{
    return e.ExitCode;
}
catch (Exception e)
{
    var fault = Faults.Describe(e);
    Console.Error.WriteLine($"error: {fault.Message}\n  {fault.ToDo}");
    if (parsed.GetValue(verbose)) Console.Error.WriteLine(e);
    return fault.ExitCode;
}
